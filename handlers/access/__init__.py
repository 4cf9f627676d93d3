"""Access control: who may call, how often, and from where."""
