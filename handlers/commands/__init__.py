"""The subcommands: classes of settings with a method `run`. `handlers/cli.py` describes them without importing them."""
