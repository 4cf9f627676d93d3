"""The operations on books: plain functions, with the books in a dictionary."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from starlette.responses import FileResponse, RedirectResponse, StreamingResponse

from handlers.contract.document import path_for
from handlers.contract.problems import Refusal
from handlers.contract.reply import Reply

COVERS = Path("covers")
PAGE_SIZE = 20

books: dict[str, dict[str, Any]] = {}
numbers = iter(range(1, 1_000_000))


def add(book: dict[str, Any]) -> dict[str, Any]:
    """Store a book under the next number, and return it without the supplier, which nobody may read."""
    stored = {"number": next(numbers), **book}
    del stored["supplier"]
    books[book["isbn"]] = stored
    return stored


def find(isbn: str) -> dict[str, Any]:
    """Return a book. Raise Refusal if there is none."""
    if isbn not in books:
        raise Refusal(404)
    return books[isbn]


def store_cover(isbn: str, image: bytes) -> None:
    """Write the cover of a book to a file."""
    COVERS.mkdir(exist_ok=True)
    (COVERS / f"{isbn}.png").write_bytes(image)


def restore_first_book() -> None:
    """Add the book of the contract's examples unless it exists, so that each operation always finds one."""
    if "9780000000001" not in books:
        add({"isbn": "9780000000001", "title": "Dune", "supplier": "x", "price": 9.5})


restore_first_book()


async def list_books(
    page: int,
    x_client: str | None,
    title: str | None,
    class_: str | None,
    price_max: float | None,
    genre: list[str] | None,
) -> Reply:
    found = [
        book
        for book in books.values()
        if (title is None or title in book["title"])
        and (class_ is None or book.get("class") == class_)
        and (price_max is None or book.get("price", 0) <= price_max)
        and (genre is None or set(genre) & set(book.get("genres", ())))
    ]
    return Reply(found[(page - 1) * PAGE_SIZE : page * PAGE_SIZE], {"X-Total-Count": str(len(found))})


async def create_book(body: dict[str, Any], x_client: str | None, page: int) -> Reply:
    if body["isbn"] in books:
        raise Refusal(409, "IsbnTaken")
    if body["title"] == "Necronomicon":
        raise Refusal(409, "Banned")
    return Reply(add(body), {"Location": path_for("getBook", isbn=body["isbn"])})


async def get_latest_book() -> RedirectResponse:
    restore_first_book()
    return RedirectResponse(path_for("getBook", isbn=list(books)[-1]), 303)


async def export_books() -> StreamingResponse:
    def lines() -> Iterator[str]:
        yield "isbn,price\r\n"
        for book in list(books.values()):
            yield f"{book['isbn']},{book.get('price', '')}\r\n"

    return StreamingResponse(lines())


async def compare_books(isbns: list[str]) -> dict[str, float | None]:
    return {isbn: books.get(isbn, {}).get("price") for isbn in isbns}


async def get_book(isbn: str) -> dict[str, Any]:
    return find(isbn)


async def delete_book(isbn: str) -> Reply | None:
    if "reserved" in find(isbn)["title"]:
        # An error of the contract's own form, not a problem document.
        return Reply({"code": 7, "message": "The book is reserved"}, status=409)
    del books[isbn]
    return None


async def lend_book(isbn: str, body: dict[str, Any] | None) -> int:
    find(isbn)
    return body.get("days", 14) if body else 14


async def set_review(isbn: str, body: str) -> str:
    find(isbn)
    return body.upper()


async def set_scan(isbn: str, body: bytes) -> bytes:
    find(isbn)
    return body[::-1]


async def set_note(isbn: str, body: dict[str, Any] | str) -> dict[str, Any]:
    find(isbn)
    return {"text": body} if isinstance(body, str) else body


async def add_cover(isbn: str, body: dict[str, Any]) -> dict[str, Any]:
    find(isbn)
    # A file is bytes with a `filename` and a `content_type`.
    image = body.pop("image")
    store_cover(isbn, image)
    details = [len(detail) for detail in body.pop("details", ())]
    return {**body, "bytes": len(image), "name": image.filename, "details": details}


async def get_cover(isbn: str) -> FileResponse:
    find(isbn)
    cover = COVERS / f"{isbn}.png"
    if not cover.exists():
        raise Refusal(404)
    return FileResponse(cover)
