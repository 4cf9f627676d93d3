"""The operations without a tag."""

from typing import Any

from handlers.contract.dispatch import RequestContext


async def search(
    id: int | None,
    class_: str | None,
    from_: str | None,
    at: str | None,
    address: str | None,
    caller: str | None,
    request: str | None,
    body: str | None,
    filter_status: str | None,
    sort_by: str | None,
    price_max: float | None,
    in_stock: bool | None,
    genre: list[str] | None,
    genre_not: list[str] | None,
    numbers: list[int] | None,
    labels: list[str] | None,
    size: dict[str, Any] | None,
    context: RequestContext,
) -> dict[str, Any]:
    """Return the arguments that the request set."""
    arguments = dict(locals())
    del arguments["context"]
    return {name: value for name, value in arguments.items() if value is not None}
