"""The queries of any table: a second one, with a foreign key, and one without versions."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest
from peewee import fn
from pydantic import BaseModel

from models.database.address import Database, open_database
from models.database.errors import ChangedError, ConfigurationError, MissingError
from models.database.statements import Execute
from models.resource import Filter, Page, Resource
from tests.support.pets import Owner, OwnerBody, Pet, PetInput, PetOutput, create_tables
from tests.support.stores import Store

# The owner has an index with the key; the other filters are conditions.
FILTERS: dict[str, Filter] = {
    "owner": Pet.owner,
    "tame": Pet.tame,
    "lighter_than": lambda weight: Pet.weight < weight,
    "prefix": lambda text: fn.substr(Pet.name, 1, fn.length(text)) == text,
}


@pytest.fixture(scope="module", params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """Return each backend in turn, because each writes the JSON in its own way."""
    return str(request.param)


class Tables:
    """The resources on a started database."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.pets = Resource(database, Pet, PetOutput, FILTERS)
        self.owners = Resource(database, Owner, OwnerBody)

    async def add(self, *pets: PetInput, **columns: Any) -> list[dict[str, Any]]:
        """Insert pets, and return their JSON objects."""

        async def insert(execute: Execute) -> list[bytes]:
            return [(await self.pets.insert(execute, pet, **columns)).json for pet in pets]

        return [json.loads(row) for row in await self.database.write(insert)]

    async def list(self, limit: int = 100, after: int = 0, **filters: Any) -> tuple[list[int], Page]:
        """Return the ids of the pets on a page, and the page."""
        page = await self.pets.select_page(limit, after, **filters)
        return [pet["id"] for pet in json.loads(page.json)], page


Work = Callable[[Tables], Awaitable[Any]]
Use = Callable[[Work], Any]


@pytest.fixture
def use(store: Store) -> Use:
    """Return a function that runs some work on a database with two owners, and returns the result."""
    create_tables(store.url, Owner, Pet)
    store.execute("INSERT INTO owner (name) VALUES ('Ann'), ('Bob')")

    def use(work: Work) -> Any:
        async def run() -> Any:
            tables = Tables(open_database(store.url))
            await tables.database.start()
            try:
                return await work(tables)
            finally:
                await tables.database.shut_down()

        return asyncio.run(run())

    return use


def test_row_becomes_the_json_object_of_the_contract(use: Use) -> None:
    async def work(tables: Tables) -> None:
        (pet,) = await tables.add(PetInput(name='Zażółć "🚀"', owner_id=2, weight=0.1 + 0.2), tame=False)
        assert pet == {
            "id": 1,
            "name": 'Zażółć "🚀"',
            "ownerId": 2,
            "weight": 0.1 + 0.2,
            "born": "2026-05-12",
            "tame": False,
        }
        assert json.loads((await tables.pets.select(1)).json) == pet
        assert [json.loads(row) for row in [(await tables.list())[1].json]] == [[pet]]
        (stray,) = await tables.add(PetInput(name="stray"))
        assert (stray["ownerId"], stray["weight"], stray["tame"]) == (None, None, True)
        (unknown,) = await tables.add(PetInput(name="unknown"), tame=None)
        assert unknown["tame"] is None

    use(work)


def test_update_replaces_and_patch_keeps_what_is_not_given(use: Use) -> None:
    async def work(tables: Tables) -> None:
        database, pets = tables.database, tables.pets
        await tables.add(PetInput(name="Rex", owner_id=1, weight=3.5))

        patched = await database.write(pets.patch, 1, PetInput(name="Max"), None)
        assert json.loads(patched.json)["ownerId"] == 1
        assert json.loads(patched.json)["weight"] == 3.5
        assert await database.write(partial(pets.patch, name="Max"), 1, None, {2}) == patched._replace(version=3)
        patched = await database.write(pets.patch, 1, PetInput.model_validate({"name": "Max", "weight": None}), {3})
        assert json.loads(patched.json)["weight"] is None
        assert patched.version == 4
        replaced = await database.write(partial(pets.update, born="2025-01-01"), 1, PetInput(name="Moe"), [1, 4])
        assert (replaced.version, json.loads(replaced.json)["ownerId"]) == (5, None)
        assert json.loads(replaced.json)["born"] == "2025-01-01"

        for change in (pets.update, pets.patch):
            with pytest.raises(ChangedError):
                await database.write(change, 1, PetInput(name="Rex"), {3})
            with pytest.raises(MissingError):
                await database.write(change, 2, PetInput(name="Rex"), None)
        with pytest.raises(ChangedError):
            await database.write(pets.delete, 1, {3})
        await database.write(pets.delete, 1, {5})
        with pytest.raises(MissingError):
            await pets.select(1)

    use(work)


def test_table_without_versions(use: Use) -> None:
    async def work(tables: Tables) -> None:
        database, owners = tables.database, tables.owners
        added = await database.write(owners.insert, OwnerBody(name="Cleo"))
        assert (added.id, added.version, json.loads(added.json)) == (3, 0, {"name": "Cleo"})
        renamed = await database.write(owners.update, 3, OwnerBody(name="Dan"), None)
        assert (renamed.version, json.loads(renamed.json)) == (0, {"name": "Dan"})
        # An empty patch changes nothing.
        assert await database.write(owners.patch, 3, OwnerBody.model_construct(), None) == renamed
        with pytest.raises(ChangedError):
            await database.write(owners.delete, 3, {1})
        await database.write(owners.delete, 3, None)
        with pytest.raises(MissingError):
            await database.write(owners.delete, 3, None)

    use(work)


def test_list_is_filtered_and_paged(use: Use) -> None:
    async def work(tables: Tables) -> None:
        await tables.add(*(PetInput(name=f"a{n}", owner_id=1 + n % 2, weight=n) for n in range(6)))
        await tables.add(PetInput(name="b"), tame=False)

        ids, page = await tables.list(limit=3)
        assert (ids, page.last_id, page.has_more) == ([1, 2, 3], 3, True)
        ids, page = await tables.list(limit=4, after=3)
        assert (ids, page.last_id, page.has_more) == ([4, 5, 6, 7], 7, False)
        ids, page = await tables.list(after=7)
        assert (ids, page.last_id, page.has_more) == ([], None, False)
        assert page.json == b"[]"

        for filters, expected in (
            ({"owner": 2}, [2, 4, 6]),
            ({"owner": None, "tame": False}, [7]),
            ({"owner": 2, "tame": True}, [2, 4, 6]),
            ({"tame": False, "owner": 2}, []),
            ({"lighter_than": 3}, [1, 2, 3]),
            ({"lighter_than": 4, "owner": 2, "prefix": "a"}, [2, 4]),
            ({"prefix": "b"}, [7]),
        ):
            assert (await tables.list(**filters))[0] == expected, filters
        ids, page = await tables.list(limit=1, after=2, owner=2, lighter_than=10)
        assert (ids, page.last_id, page.has_more) == ([4], 4, True)
        assert not (await tables.list(after=4, owner=2, limit=1))[1].has_more

    use(work)


def test_each_format_has_its_own_fingerprint(use: Use) -> None:
    async def work(tables: Tables) -> list[str]:
        return [tables.pets.fingerprint, tables.owners.fingerprint]

    assert len(set(use(work))) == 2


def test_property_without_a_column_is_refused() -> None:
    class Body(BaseModel):
        name: str
        chip: str
        age: int

    with pytest.raises(ConfigurationError) as error:
        Resource(open_database("sqlite:///never-opened.db"), Pet, Body)

    assert str(error.value) == "Add the columns age, chip of Body to pet (tests.support.pets)."
