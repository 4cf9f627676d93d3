"""Settings: a flag beats the environment, which beats the file `.env`, which beats the default; whatever the values."""

import asyncio
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import pytest
import uvicorn
from uvicorn.server import ServerState
from uvicorn.supervisors import ChangeReload, Multiprocess

from handlers.cli import serve
from handlers.settings import ServerSettings, variable
from tests.support import inside
from tests.support.service import environment

# A value other than the default for each setting whose text must have some form.
OTHER = {
    "database_url": "sqlite:///other.db",
    "host": "127.0.0.2",
    "trusted_proxies": "10.0.0.0/8, ::1",
    "public_url": "https://tasks.example.com/v1",
    "allowed_origins": "https://a.example.com, https://b.example.com",
    "metrics": "[::1]:9464",
    "rate_limit": "100/second;5000/hour",
    "rate_limit_storage": "redis://127.0.0.1:6379/0",
}
NAMES = list(ServerSettings.model_fields)


def default(name: str) -> Any:
    return ServerSettings.model_fields[name].default


def other(name: str) -> Any:
    """Return a value that is not the default."""
    if name in OTHER:
        return OTHER[name]
    kind = ServerSettings.model_fields[name].annotation
    assert kind in (bool, int, float), f"Give {name} a value in OTHER."
    # The fraction must survive.
    return not default(name) if kind is bool else default(name) + (0.25 if kind is float else 1)


def least(name: str) -> Any:
    """Return the least number that is allowed, or almost; the default of a setting that is no number."""
    if ServerSettings.model_fields[name].annotation not in (int, float):
        return default(name)
    return next((bound.ge for bound in ServerSettings.model_fields[name].metadata if hasattr(bound, "ge")), 0.001)


def flag(name: str, value: Any) -> str:
    """Return the flag that sets a value."""
    kebab = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{kebab}" if value else f"--no-{kebab}"
    return f"--{kebab}={value}"


def read(folder: Path, *flags: str, variables: dict[str, Any] | None = None, file: dict[str, Any] | None = None) -> Any:
    """Return the settings with which `tasks-api serve` serves, given flags, variables and lines of a file `.env`."""
    (folder / ".env").write_text("".join(f'{name}="{value}"\n' for name, value in (file or {}).items()))
    given = {name: str(value) for name, value in (variables or {}).items()}
    # That of the tests has settings of its own.
    plain = {name: value for name, value in environment().items() if not name.startswith("TASKS_API_")}
    with (
        patch("tests.support.inside.environment", lambda _: plain | given),
        patch("handlers.cli.serve") as served,
        patch("handlers.observability.metrics.serve"),
    ):
        ended = inside.run(folder, "serve", *flags)
    assert ended.returncode == 0, ended.stderr
    ((settings,), _) = served.call_args
    return settings


@pytest.mark.parametrize("name", NAMES)
def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path, name: str) -> None:
    """Also where what wins equals the default, is empty, zero or false."""
    variable_ = variable(name)
    for value in (default(name), other(name), least(name)):
        loses = other(name) if value != other(name) else default(name)
        lost = {variable_: loses}

        assert getattr(read(tmp_path, flag(name, value), variables=lost, file=lost), name) == value
        assert getattr(read(tmp_path, variables={variable_: value}, file=lost), name) == value
        assert getattr(read(tmp_path, file={variable_: value}), name) == value
    assert getattr(read(tmp_path), name) == default(name)


class Started(NamedTuple):
    """What a process serves with: the settings that it reads, and what uvicorn is told."""

    settings: ServerSettings
    config: uvicorn.Config


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Started]]:
    """Let `serve` do all but serve, and note with what it would."""
    started: list[Started] = []

    def run(self: Any, sockets: list[socket.socket] | None = None) -> None:
        started.append(Started(ServerSettings(), self.config))
        for listener in sockets or self.sockets:
            listener.close()

    for runner in (uvicorn.Server, Multiprocess, ChangeReload):
        monkeypatch.setattr(runner, "run", run)
    # The log of the tests stays theirs.
    monkeypatch.setattr(uvicorn.Config, "configure_logging", lambda _: None)
    before, files = signal.getsignal(signal.SIGTERM), resource.getrlimit(resource.RLIMIT_NOFILE)
    with chdir(tmp_path), patch.dict(os.environ, environment(), clear=True):
        yield started
    signal.signal(signal.SIGTERM, before)
    resource.setrlimit(resource.RLIMIT_NOFILE, files)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("value", [default, other, least])
def test_workers_have_the_settings_of_the_command(
    tmp_path: Path, started: list[Started], value: Callable[[str], Any], workers: int
) -> None:
    """They read them from the environment, which flags beat."""
    fixed = {"port": 0, "workers": workers, "database_url": "sqlite:///tasks.db"}
    values = {name: fixed.get(name, value(name)) for name in NAMES}
    lost = {variable(name): other(name) if values[name] != other(name) else default(name) for name in NAMES}
    settings = read(tmp_path, *(flag(name, given) for name, given in values.items()), variables=lost, file=lost)
    os.environ.update({name: str(given) for name, given in lost.items()})

    serve(settings)

    assert started[0].settings.model_dump() == values


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        there = socket.create_connection(listener.getsockname())
        return listener.accept()[0], there


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "milliseconds"), [(0.5, 500), (1.25, 1250), (10, 10_000), (0.001, 1)])
def test_request_timeout_is_that_of_the_socket(
    tmp_path: Path, started: list[Started], seconds: float, milliseconds: int
) -> None:
    """To the millisecond."""
    serve(read(tmp_path, "--port=0", f"--request-timeout={seconds}"))
    config = started[0].config
    config.load()

    async def connect() -> int:
        state = ServerState()
        protocol = config.http_protocol_class(config=config, server_state=state, app_state={})  # type: ignore[call-arg]
        here, there = tcp_pair()
        with there:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, here)
            option: int = here.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            transport.abort()
            await asyncio.sleep(0)
        return option

    assert asyncio.run(connect()) == milliseconds


@pytest.mark.parametrize("name", ["VERSION", "SERVE", "MIGRATE", "KEY", "BACKUP", "COPY", "NAME", "FILE", "PORT"])
@pytest.mark.parametrize("prefix", ["TASKS_API_", ""])
def test_variable_of_another_meaning_is_no_concern_of_a_command(tmp_path: Path, prefix: str, name: str) -> None:
    """Such as the version of an image, the key of a client, or the port that Kubernetes tells of."""
    made = inside.run(tmp_path, "migrate", variables={f"{prefix}{name}": "tcp://10.0.0.1:80"})

    assert (made.returncode, made.stderr) == (0, "")
    assert made.stdout.startswith("Applied: ")
