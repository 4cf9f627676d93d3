"""The operations without a tag."""

from typing import Any

from handlers.contract.dispatch import RequestContext


async def search(
    id: int | None,
    class_: str | None,
    from_: str | None,
    address: str | None,
    caller: str | None,
    request: str | None,
    body: str | None,
    filter_status: str | None,
    sort_by: str | None,
    context: RequestContext,
) -> dict[str, Any]:
    names = ("id", "class_", "from_", "address", "caller", "request", "body", "filter_status", "sort_by")
    arguments = locals()
    return {name: arguments[name] for name in names if arguments[name] is not None}
