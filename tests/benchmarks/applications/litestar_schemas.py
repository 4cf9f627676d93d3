"""The bodies of the peers in Litestar, for msgspec."""

from typing import Annotated

from msgspec import Meta, Struct

Title = Annotated[str, Meta(min_length=1, max_length=255)]
Description = Annotated[str, Meta(max_length=4000)]


class TaskInput(Struct, forbid_unknown_fields=True):
    title: Title
    description: Description | None = None
    completed: bool = False


class Task(Struct, rename="camel"):
    id: int
    title: str
    description: str | None
    completed: bool
    created_at: str
