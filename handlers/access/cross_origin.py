"""Lets pages of other origins call the service from a browser (fetch.spec.whatwg.org, section 3.2)."""

from collections.abc import Sequence
from http import HTTPMethod

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from handlers.contract import document as contract

# What a request may have beside the parameters of the contract.
REQUEST_HEADERS = {"Authorization", "Content-Type", "X-Request-ID"}


class CrossOrigin(CORSMiddleware):
    """Starlette's layer, which here takes from the contract what may be sent and read.

    Args:
        app: The next layer.
        origins: Where the pages come from, as in `https://app.example.com`; `*` for any.
    """

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        methods = {method.upper() for item in contract.specification()["paths"].values() for method in item}
        operations = [operation for _, operation in contract.operations().values()]
        parameters = [parameter for operation in operations for parameter in operation.get("parameters", ())]
        responses = [response for operation in operations for response in operation["responses"].values()]
        super().__init__(
            app,
            allow_origins=origins,
            allow_methods=sorted(methods & {method.value for method in HTTPMethod}),
            allow_headers=sorted(REQUEST_HEADERS | {p["name"] for p in parameters if p["in"] == "header"}),
            expose_headers=sorted({name for response in responses for name in response.get("headers", {})}),
        )

    def preflight_response(self, request_headers: Headers) -> Response:
        # Whether a request may be sent is said by the header fields alone.
        headers = super().preflight_response(request_headers).headers
        kept = {name: value for name, value in headers.items() if not name.startswith("content-")}
        return Response(status_code=204, headers=contract.constant_headers(None, 204) | kept)
