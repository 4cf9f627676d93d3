"""The tests. A package, because a dependency also installs a package named `tests`."""
