"""Two example changes to the API, as a newcomer would make them; `make changes` applies and tests both changes."""
