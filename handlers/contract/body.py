"""Read and validate the body of a request."""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from functools import lru_cache
from inspect import Parameter
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, PydanticUserError, RootModel, TypeAdapter, ValidationError
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from handlers.contract import document
from handlers.contract.faults import FaultError
from handlers.contract.forms import FORMS, MAX_PARAMETERS, form_reader
from handlers.contract.parameters import from_json, properties_of, types_of
from handlers.contract.problems import Refusal
from handlers.contract.reply import is_json
from handlers.contract.validation import Rules, Violation, messages, pointer

# A request without these header fields has no content (RFC 9112, section 6.3).
CONTENT = (b"content-length", b"transfer-encoding")
# JSON is in UTF-8 (RFC 8259, section 8.1), and so are forms and text. Some clients spell it without the hyphen.
CHARSETS = {b"", b"utf-8", b"utf8", b"us-ascii", b"ascii"}


class Media(NamedTuple):
    """A media type of a request body."""

    kind: Literal["json", "form", "text", "bytes"]
    rules: Rules
    read_form: Callable[[bytes, bytes], Awaitable[Any]] | None = None

    async def read(self, content: bytes, content_type: bytes) -> tuple[Any, Any]:
        """Return the value of a content, and the same as JSON. Raise ValueError if the content is malformed."""
        if self.kind == "json":
            value = from_json(content)
            return value, value
        if self.read_form:
            fields = await self.read_form(content, content_type)
            return fields, {name: _as_json(value) for name, value in fields.items()}
        value = content.decode() if self.kind == "text" else content
        return value, _as_json(value)


def _as_json(value: Any) -> Any:
    """Return a value for validation: the length of a file is its number of bytes."""
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _make_media(name: str, description: dict[str, Any], place: str) -> Media:
    schema = description.get("schema", {})
    rules = Rules(schema, messages()["body"], place=f"{place}.schema", is_text=name in FORMS)
    if is_json(name):
        return Media("json", rules)
    if name in FORMS:
        return Media("form", rules, form_reader(name, description, place))
    if {*types_of(schema)} - {"string", "null"} or properties_of(schema):
        sentence = "only a string is supported for this media type; use type: string, or application/json."
        raise FaultError(f"{place}.schema", sentence)
    return Media("text" if name.startswith("text/") else "bytes", rules)


def _check_model(hint: Any, schema: Any, place: str) -> None:
    """Raise FaultError if a generated model is older than its schema."""
    if isinstance(hint, type) and issubclass(hint, BaseModel) and hint.__module__ == "models.schemas":
        names = {info.alias or name for name, info in hint.model_fields.items()}
        properties = {name: document.resolve(part) for name, part in properties_of(schema).items()}
        missing = [name for name, part in properties.items() if not part.get("readOnly") and name not in names]
        if missing and not issubclass(hint, RootModel):
            raise FaultError(place, f"the model {hint.__name__} has no {missing[0]}; run make generate.")


class RequestBody:
    """The request body of an operation, for a handler whose argument `body` has the annotation `hint`.

    The constructor raises FaultError if the body is not supported.
    """

    def __init__(self, description: dict[str, Any], hint: Any = Parameter.empty, place: str = "") -> None:
        self.is_required: bool = description.get("required", False)
        self.max_bytes: int = description.get("x-max-bytes", document.raw()["x-max-bytes"])
        self.media: dict[str, Media] = {}
        for key, media in description["content"].items():
            name = parse_options_header(key)[0].decode("latin-1")
            if name in self.media:
                raise FaultError(f"{place}.content", f"{name} occurs twice; parameters do not distinguish media types.")
            self.media[name] = _make_media(name, media, f"{place}.content.{key}")
            _check_model(hint, media.get("schema", {}), f"{place}.content.{key}.schema")
        try:
            self.convert = TypeAdapter(Any if hint is Parameter.empty else hint).validator.validate_python
        except PydanticUserError as error:
            sentence = f"the handler's body cannot be a {hint}; use a Pydantic model, dict, list, str or bytes."
            raise FaultError(place, sentence) from error
        self.select = lru_cache(self._select)

    async def read(self, scope: Scope, receive: Receive) -> Any:
        """Return the validated body as an object of the handler's type, or None for an optional body that is absent."""
        headers = scope["headers"]
        if not self.is_required and all(value == b"0" for name, value in headers if name in CONTENT):
            return None
        types = [value for name, value in headers if name == b"content-type"]
        codings = [value for name, value in headers if name == b"content-encoding" and value.lower() != b"identity"]
        media = self.select(types[0]) if len(types) == 1 and not codings else None
        if not media:
            raise Refusal(415)
        content = await self._receive(headers, receive)
        try:
            value, instance = await media.read(content, types[0])
        except ValueError as error:
            rule = "json" if media.kind == "json" else "malformed"
            raise Refusal(400, violations=[media.rules.violation(rule, str(error))]) from error
        if not media.rules.is_valid(instance):
            raise Refusal(400, violations=media.rules.violations(instance))
        try:
            return self.convert(value)
        except ValidationError as error:
            raise Refusal(400, violations=_violations(error, value)) from error

    def _select(self, content_type: bytes) -> Media | None:
        """Return the media type of a Content-Type (RFC 9110, section 8.3), or None if it is not supported."""
        if content_type.count(b";") > MAX_PARAMETERS:
            return None
        parsed, parameters = parse_options_header(content_type)
        name, charset = parsed.decode("latin-1"), parameters.get(b"charset", b"").lower()
        ranges = (name, f"{name.partition('/')[0]}/*", "*/*") if "/" in name else ()
        media = next((self.media[each] for each in ranges if each in self.media), None)
        return media if media and (media.kind == "bytes" or charset in CHARSETS) else None

    async def _receive(self, headers: list[tuple[bytes, bytes]], receive: Receive) -> bytes:
        # Starlette's `Request.stream` takes a microsecond more.
        if next((int(value) for name, value in headers if name == b"content-length"), 0) > self.max_bytes:
            raise Refusal(413)
        body = bytearray()
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                raise ClientDisconnect
            body += event.get("body", b"")
            if len(body) > self.max_bytes:
                raise Refusal(413)
            if not event.get("more_body"):
                return bytes(body)


def _violations(error: ValidationError, value: Any) -> Iterator[Violation]:
    """Yield what the handler's type adds to the schema, such as dates that the calendar lacks."""
    for found in error.errors(include_url=False, include_context=False, include_input=False):
        path, node = [], value
        for step in found["loc"]:
            # Pydantic also names the alternatives of a union, which are no steps in the value.
            with suppress(KeyError, IndexError, TypeError):
                node = node[step]
                path.append(str(step))
        name = path[-1] if path else messages()["body"]
        yield Violation(f"{name}: {found['msg'].removeprefix('Value error, ')}", pointer(path))
