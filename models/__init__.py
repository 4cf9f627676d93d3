"""Everything that is kept: the tasks' table, its migrations, the connection, and the bodies of the contract."""
