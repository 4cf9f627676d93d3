"""Storage: the tables with their queries, the migrations and the databases; and the contract's bodies as models."""
