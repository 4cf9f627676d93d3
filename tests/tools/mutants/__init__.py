"""Mutation tests: generate small defects, plant them one at a time, and list the defects that no test finds."""
