"""Mutation tests: generate small defects, plant them one at a time, and list those that no test finds."""
