"""Allow pages of other origins to call the service: CORS (fetch.spec.whatwg.org, section 3.2)."""

from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from handlers.contract import document


class CrossOrigin(CORSMiddleware):
    """Starlette's CORS middleware, with the methods and response headers of the contract; the origin `*` allows all."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        operations = document.operations()
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=sorted({operation.method for operation in operations.values()}),
            # SDKs for tracing add many different headers. The service ignores those that are not in the contract, and
            # browsers send no cookies to it, so a page gains nothing from a header that the contract does not have.
            allow_headers=["*"],
            expose_headers=sorted({*document.header_names(*operations)}),
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        """Return 204 without a body; Starlette would return 200 or 400 with a text body."""
        headers = super().preflight_response(request_headers).headers
        prefix = "access-control-" if "access-control-allow-origin" in headers else "vary"
        kept = {name: value for name, value in headers.items() if name.startswith(("vary", prefix))}
        return Response(status_code=204, headers=document.constant_headers(None, 204) | kept)
