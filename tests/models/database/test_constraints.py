"""A write that violates a unique constraint or a foreign key fails at once, with an error that names the columns."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from models.database.address import Database, open_database
from models.database.errors import ConstraintError, DuplicateError, ForeignKeyError
from models.database.statements import Execute
from tests.support.pets import Owner, Pet, create_tables
from tests.support.stores import Store


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Return each backend in turn, because each has errors of its own."""
    return str(request.param)


@pytest.fixture
def database(store: Store) -> Database:
    """Return a database where Ann owns Rex."""
    create_tables(store.url, Owner, Pet)
    store.execute("INSERT INTO owner (name) VALUES ('Ann'), ('Bob')")
    store.execute("INSERT INTO pet (name, owner_id, born, tame) VALUES ('Rex', 1, '', true)")
    return open_database(store.url)


def use(database: Database, work: Callable[[], Any]) -> Any:
    async def start_and_work() -> Any:
        await database.start()
        try:
            return await work()
        finally:
            await database.shut_down()

    return asyncio.run(start_and_work())


PET = "INSERT INTO pet (name, {column}, born, tame) VALUES ('{name}', {id}, '', true)"


@pytest.mark.parametrize(
    ("sql", "error"),
    [
        ("INSERT INTO owner (name) VALUES ('Ann')", DuplicateError),
        ("INSERT INTO owner (id, name) VALUES (1, 'Cleo')", DuplicateError),
        ("UPDATE owner SET name = 'Bob' WHERE name = 'Ann'", DuplicateError),
        (PET.format(name="Rex", column="owner_id", id=1), DuplicateError),
        (PET.format(name="Max", column="owner_id", id=3), ForeignKeyError),
        (PET.format(name="Max", column="sitter_id", id=3), ForeignKeyError),
        ("DELETE FROM owner WHERE name = 'Ann'", ForeignKeyError),
    ],
)
def test_violation_is_reported_at_once(database: Database, sql: str, error: type[ConstraintError]) -> None:
    runs = []

    async def work(execute: Execute) -> None:
        runs.append(1)
        await execute(sql, [])

    async def write_in_both_ways() -> None:
        for write in (database.write, database.write_atomically):
            with pytest.raises(error):
                await write(work)

    use(database, write_in_both_ways)

    assert len(runs) == 2


def test_violation_of_an_index_on_an_expression_is_reported(database: Database, store: Store) -> None:
    store.execute("CREATE UNIQUE INDEX anything ON owner (lower(name))")

    async def work(execute: Execute) -> None:
        await execute("INSERT INTO owner (name) VALUES ('ANN')", [])

    with pytest.raises(DuplicateError):
        use(database, lambda: database.write(work))


def test_work_may_handle_a_violation(database: Database) -> None:
    async def insert_or_find(execute: Execute) -> Any:
        try:
            await execute("INSERT INTO owner (name) VALUES ('Bob')", [])
        except DuplicateError:
            return await execute("SELECT id FROM owner WHERE name = 'Bob'", [])

    assert use(database, lambda: database.write(insert_or_find)) == [(2,)]


@pytest.mark.parametrize("sql", ["INSERT INTO owner (name) VALUES (NULL)", "UPDATE pet SET born = NULL"])
def test_other_constraints_are_faults(database: Database, sql: str) -> None:
    async def work(execute: Execute) -> None:
        await execute(sql, [])

    with pytest.raises(Exception, match=r"(?i)not[- ]null") as violation:
        use(database, lambda: database.write(work))

    assert not isinstance(violation.value, ConstraintError)
