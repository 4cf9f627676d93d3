"""An application in this process, called without a server, and contracts other than the project's."""

import asyncio
import importlib
import json
import pkgutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import yaml

import handlers
import handlers.contract
from handlers.application import create_app
from handlers.contract import document
from handlers.settings import ServerSettings


class Answer(NamedTuple):
    """A response. The names of the header fields are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Application:
    """An application in this process."""

    def __init__(self, url: str, **settings: Any) -> None:
        self.app: Any = create_app(ServerSettings(database_url=url, **settings))
        self.events: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.started = asyncio.Event()
        self.state: dict[str, Any] = {}

    async def __aenter__(self) -> "Application":
        async def send(event: dict[str, Any]) -> None:
            assert event["type"].endswith(".complete"), event
            self.started.set()

        self.lifespan = asyncio.create_task(self.app({"type": "lifespan", "state": self.state}, self.events.get, send))
        await self.events.put({"type": "lifespan.startup"})
        await asyncio.wait_for(self.started.wait(), 60)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.events.put({"type": "lifespan.shutdown"})
        await asyncio.wait_for(self.lifespan, 60)

    async def call(self, method: str, url: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Send a request. A body that is not bytes is sent as JSON."""
        path, _, query = url.partition("?")
        fields = {"host": "localhost", **({} if isinstance(body, bytes) else {"content-type": "application/json"})}
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else b""
        fields |= {"content-length": str(len(content))} if content else {}
        scope = {
            "type": "http",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
            "headers": [
                (name.lower().encode(), value.encode("latin-1")) for name, value in (fields | (headers or {})).items()
            ],
            "client": ("192.0.2.1", 1),
            "state": {**self.state, "request_id": "1"},
        }
        sent: list[dict[str, Any]] = []

        received = asyncio.Event()

        async def receive() -> dict[str, Any]:
            # The client stays connected after the body.
            if received.is_set():
                await asyncio.Event().wait()
            received.set()
            return {"type": "http.request", "body": content}

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        answered = {name.decode(): value.decode("latin-1") for name, value in sent[0]["headers"]}
        return Answer(sent[0]["status"], answered, b"".join(message.get("body", b"") for message in sent))


@contextmanager
def other_contract(folder: Path, described: dict[str, Any] | str, **modules: str) -> Iterator[None]:
    """Replace the contract of this process, and add modules to the package `handlers` by name."""
    file, project = folder / "openapi.yaml", document.PATH
    if isinstance(described, dict):
        contract = {"info": {"title": "Other API", "version": "1"}, **described}
        described = yaml.safe_dump(contract, sort_keys=False)
    file.write_text(described, errors="surrogateescape", encoding="utf-8")
    for name, source in modules.items():
        (folder / f"{name}.py").write_text(source, "utf-8")
    handlers.__path__.append(str(folder))
    importlib.invalidate_caches()
    _use(file)
    try:
        yield
    finally:
        _use(project)
        handlers.__path__.remove(str(folder))
        for name in modules:
            sys.modules.pop(f"handlers.{name}", None)
            vars(handlers).pop(name, None)


def _use(path: Path) -> None:
    """Read the contract from this file from now on."""
    document.PATH = path
    for module in pkgutil.iter_modules(handlers.contract.__path__, "handlers.contract."):
        for value in vars(importlib.import_module(module.name)).values():
            if hasattr(value, "cache_clear"):
                value.cache_clear()
