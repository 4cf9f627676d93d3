"""Copy a SQLite file to a PostgreSQL server, for a service that outgrows one machine."""

from collections.abc import Iterator
from itertools import zip_longest
from typing import Any

import peewee
import psycopg

from models.answers import KeptAnswer
from models.database.address import connected, existing_database, one_line
from models.database.errors import ConfigurationError
from models.database.migrate import ensure_migrated, migrate
from models.database.postgresql import PostgresqlDatabase
from models.database.sqlite import SqliteFile
from models.keys import ApiKey
from models.task import Task

# The tables, each with a column to sort by. It must not hold strings, because PostgreSQL sorts them by its locale.
TABLES: dict[type[peewee.Model], str] = {Task: "id", KeptAnswer: "key", ApiKey: "hash"}


def copy(source: str, target: str) -> Iterator[tuple[int, int]]:
    """Copy all rows in one transaction, then read them back and compare. The source is locked against writes.

    Yields:
        The number of rows copied or compared so far, and the total number.
    """
    existing_database(source, "--from")
    with connected(source) as file, connected(target) as server:
        if not isinstance(file, SqliteFile) or not isinstance(server, PostgresqlDatabase):
            raise ConfigurationError("--from must name a SQLite file, and --to a server.")
        ensure_migrated(file)
        if not server.table_exists("task"):
            migrate(target)
        ensure_migrated(server)
        try:
            with file.atomic("IMMEDIATE"), server.connection().transaction():
                yield from _copy(file, server.connection())
        except (peewee.DatabaseError, psycopg.Error) as error:
            raise ConfigurationError(f"Nothing was copied: {one_line(error)}.") from error


def _copy(file: SqliteFile, server: psycopg.Connection[Any]) -> Iterator[tuple[int, int]]:
    tables = {table: f'"{table._meta.table_name}"' for table in TABLES}
    server.execute(f"LOCK TABLE {', '.join(tables.values())}")
    total = 2 * sum(file.execute_sql(f"SELECT count(*) FROM {name}").fetchone()[0] for name in tables.values())
    done = 0
    for table, sort_column in TABLES.items():
        name = tables[table]
        if server.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone():
            raise ConfigurationError("The target has tasks already: name an empty database in --to.")
        columns = ", ".join(f'"{field.column_name}"' for field in table._meta.sorted_fields)
        rows = table.select().order_by(getattr(table, sort_column)).tuples()
        with server.cursor().copy(f"COPY {name} ({columns}) FROM STDIN") as target:
            for row in rows.clone().iterator(file):
                target.write_row(row)
                done += 1
                yield done, total
        with server.cursor(name="stored") as cursor:
            stored_rows = cursor.execute(f"SELECT {columns} FROM {name} ORDER BY {sort_column}")
            for sent, stored in zip_longest(rows.clone().iterator(file), stored_rows):
                if sent != stored:
                    message = f"The server stores other rows of {name} than it was sent: nothing was copied."
                    raise ConfigurationError(message)
                done += 1
                yield done, total
    # Ids of deleted tasks must not be reused.
    sequence = "pg_get_serial_sequence('task', 'id')"
    server.execute(f"SELECT setval({sequence}, greatest(%s, nextval({sequence})))", [file.highest_id()])
