"""Storage: the tables with their queries, the migrations and the databases; and models of the contract's bodies."""
