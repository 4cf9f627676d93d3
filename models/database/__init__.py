"""Storage for any table: SQLite, PostgreSQL and schema migrations."""
