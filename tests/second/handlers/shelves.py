"""The operations on shelves: a class, whose constructor receives what all requests share."""

from handlers.contract.problems import Refusal
from handlers.services import Services
from models.schemas import Shelf, StoredShelf


class Handlers:
    """The handlers, with the shelves in a list."""

    def __init__(self, services: Services) -> None:
        self.database = services.database
        self.shelves = [Shelf(name="Entrance")]

    async def create_shelf(self, body: Shelf) -> StoredShelf:
        self.shelves.append(body)
        return self._stored(len(self.shelves))

    async def get_shelf(self, shelf_id: int) -> StoredShelf:
        if shelf_id > len(self.shelves):
            raise Refusal(404)
        return self._stored(shelf_id)

    def _stored(self, shelf_id: int) -> StoredShelf:
        shelf = self.shelves[shelf_id - 1]
        return StoredShelf(shelf_id=shelf_id, count=_count(shelf), shelf=shelf)


def _count(shelf: Shelf) -> int:
    return 1 + sum(map(_count, shelf.shelves or ()))
