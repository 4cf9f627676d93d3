"""The handlers of a plain document: a few lines, with the dogs in a dictionary."""

from typing import Any

from handlers.contract.problems import Refusal

dogs: dict[int, dict[str, Any]] = {}


async def find_dogs(tags: list[str] | None, limit: int | None) -> list[dict[str, Any]]:
    return [dog for dog in dogs.values() if not tags or dog.get("tag") in tags][:limit]


async def add_dog(body: dict[str, Any]) -> dict[str, Any]:
    return dogs.setdefault(len(dogs) + 1, body | {"id": len(dogs) + 1})


async def find_dog_by_id(id: int) -> dict[str, Any]:
    if id not in dogs:
        raise Refusal(404)
    return dogs[id]


async def delete_dog(id: int) -> None:
    dogs.pop(id, None)
