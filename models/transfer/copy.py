"""Copy a SQLite file to a PostgreSQL server, for a service that outgrows one machine."""

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import zip_longest
from typing import Any, cast

import peewee
import psycopg

from models.database.address import (
    FILE,
    SERVER,
    SERVER_SCHEMES,
    Database,
    connection,
    existing_database,
    one_line,
    open_database,
)
from models.database.errors import ConfigurationError
from models.database.migrate import ensure_migrated, migrate, refuse_foreign_file
from models.database.postgresql import PostgresqlDatabase
from models.database.sqlite import SqliteFile

Tables = Sequence[type[peewee.Model]]
# The column types of strings. PostgreSQL sorts them by its locale, and SQLite by their bytes.
STRINGS = {"TEXT", "VARCHAR", "CHAR"}


def copy(source: str, target: str, tables: Tables) -> Iterator[tuple[int, int]]:
    """Copy all rows from a file to a server, by their URLs, in one transaction; then read them back and compare.

    The source is locked against writes. A table comes after those that it refers to. Yield the number of rows copied
    or compared so far, and the total number.
    """
    if not source.startswith("sqlite://") or not target.startswith(SERVER_SCHEMES):
        raise ConfigurationError(f"--from must name {FILE}, and --to {SERVER}.")
    file = cast("SqliteFile", existing_database(source, "--from"))
    refuse_foreign_file(source, "--from")
    server = cast("PostgresqlDatabase", open_database(target, setting="--to"))
    with connection(file, "--from"):
        ensure_migrated(file)
        with connection(server, "--to"):
            if not server.table_exists("schema_migration"):
                migrate(target)
            ensure_migrated(server)
            try:
                with file.atomic("IMMEDIATE"), server.connection().transaction():
                    yield from _copy(file, server, tables)
            except (peewee.DatabaseError, psycopg.Error, sqlite3.Error) as error:
                # Peewee does not translate the errors of an iteration.
                raise ConfigurationError(f"Nothing was copied: {one_line(error)}.") from error


def _copy(file: SqliteFile, server: PostgresqlDatabase, tables: Tables) -> Iterator[tuple[int, int]]:
    connection: psycopg.Connection[Any] = server.connection()
    names = {table: f'"{table._meta.table_name}"' for table in tables}
    connection.execute(f"LOCK TABLE {', '.join(names.values())}")
    total = 2 * sum(file.execute_sql(f"SELECT count(*) FROM {name}").fetchone()[0] for name in names.values())
    done = 0
    yield done, total
    for table, name in names.items():
        if connection.execute(f"SELECT 1 FROM {name} LIMIT 1").fetchone():
            raise ConfigurationError(f"The target has rows in {name} already: name an empty database in --to.")
        rows = _sorted_rows(table, file)
        columns = ", ".join(f'"{field.column_name}"' for field in table._meta.sorted_fields)
        with connection.cursor().copy(f"COPY {name} ({columns}) FROM STDIN") as target:
            for row in rows.clone().iterator(file):
                target.write_row(row)
                done += 1
                yield done, total
        with connection.cursor(name="stored") as cursor:
            stored_rows = cursor.execute(_sorted_rows(table, server).sql()[0])
            for sent, stored in zip_longest(rows.clone().iterator(file), stored_rows):
                if sent != stored:
                    message = f"The server stores other rows of {name} than it was sent: nothing was copied."
                    raise ConfigurationError(message)
                done += 1
                yield done, total
        key = table._meta.primary_key
        if isinstance(key, peewee.AutoField):
            # Ids of deleted rows must not be reused.
            ((highest,),) = file.execute_sql(f'SELECT max("{key.column_name}") FROM {name}').fetchall()
            highest = max(highest or 0, file.highest_ids().get(table._meta.table_name, 0))
            sequence = f"pg_get_serial_sequence('{name}', '{key.column_name}')"
            connection.execute(f"SELECT setval({sequence}, greatest(%s, nextval({sequence})))", [highest])


def _sorted_rows(table: type[peewee.Model], database: Database) -> peewee.ModelSelect:
    """Return the query of all rows in the order of their primary keys, which is the same in both databases."""
    keys = [
        database.as_bytes(field) if field.field_type in STRINGS else field for field in table._meta.get_primary_keys()
    ]
    return table.select().order_by(*keys).bind(database).tuples()
