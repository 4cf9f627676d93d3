"""The tests; a package, because some of what they use installs one of this name too."""
