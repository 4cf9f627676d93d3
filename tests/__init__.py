"""The project's tests. This file makes `tests` a package, since a dependency also installs a package of that name."""
