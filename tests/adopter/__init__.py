"""Two changes to the API as a newcomer makes them, which `make changes` tries: examples of what a change needs."""
