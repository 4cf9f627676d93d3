"""Two tables that the service does not have: with unique columns, foreign keys and every type of column."""

from typing import Annotated, Any

import peewee
from peewee import SQL
from pydantic import BaseModel, Field

from models.database.address import connected


class Owner(peewee.Model):
    """An owner of pets; the table has no versions."""

    id = peewee.BigAutoField()
    name = peewee.TextField(unique=True)


class Pet(peewee.Model):
    """A pet, which may have an owner."""

    id = peewee.BigAutoField()
    name = peewee.TextField()
    # Its reference is checked at the end of the statement, and its owner cannot be deleted.
    owner = peewee.ForeignKeyField(Owner, null=True, on_delete="RESTRICT")
    # Its reference is checked at the end of the transaction.
    sitter = peewee.ForeignKeyField(Owner, null=True, deferrable="INITIALLY DEFERRED", backref="+")
    weight = peewee.DoubleField(null=True)
    born = peewee.TextField(default="2026-05-12")
    tame = peewee.BooleanField(null=True, default=True)
    version = peewee.BigIntegerField(constraints=[SQL("DEFAULT 1")])

    class Meta:
        indexes = ((("owner", "name"), True),)


class PetOutput(BaseModel):
    """The JSON object of a pet."""

    id: int
    name: str
    owner_id: Annotated[int | None, Field(alias="ownerId")]
    weight: float | None
    born: str
    tame: bool | None


class PetInput(BaseModel):
    """The properties of a pet that a client can set."""

    name: str
    owner_id: int | None = None
    weight: float | None = None


class OwnerBody(BaseModel):
    """The JSON object of an owner, without its id."""

    name: str


def create_tables(url: str, *tables: Any) -> None:
    """Create tables in the database at a URL. Ids are never reused."""
    with connected(url) as database, database.bind_ctx(tables):
        for table in tables:
            sql, _ = table._schema._create_table(safe=False).query()
            if database.embedded:
                sql = sql.replace("PRIMARY KEY,", "PRIMARY KEY AUTOINCREMENT,")
            database.execute_sql(sql)
            table._schema.create_indexes()
