"""Precedence of settings: flag, environment, file `.env`, default."""

import asyncio
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import chdir
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import Mock, patch

import pytest
import uvicorn
from pydantic import ValidationError
from uvicorn.server import ServerState
from uvicorn.supervisors import ChangeReload, Multiprocess

from handlers.contract.document import PREFIX
from handlers.server.serve import serve
from handlers.settings import ServerSettings, variable
from tests.support import inside
from tests.support.service import environment

# For each setting whose value must have a certain format, a valid value that differs from the default.
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
    """Return a valid value for a setting that differs from its default."""
    if name in OTHER:
        return OTHER[name]
    kind = ServerSettings.model_fields[name].annotation
    assert kind in (bool, int, float), f"Give {name} a value in OTHER."
    # Add a fraction to a float, because the service must not round it.
    return not default(name) if kind is bool else default(name) + (0.25 if kind is float else 1)


def minimum(name: str) -> Any:
    """Return the minimum of a setting, or 0.001 if it has none; return the default if the setting is not a number."""
    if ServerSettings.model_fields[name].annotation not in (int, float):
        return default(name)
    return next((bound.ge for bound in ServerSettings.model_fields[name].metadata if hasattr(bound, "ge")), 0.001)


def flag(name: str, value: Any) -> str:
    """Return the command-line flag that sets a setting to `value`."""
    kebab = name.replace("_", "-")
    if isinstance(value, bool):
        return f"--{kebab}" if value else f"--no-{kebab}"
    return f"--{kebab}={value}"


def read_settings(
    folder: Path, *flags: str, variables: dict[str, Any] | None = None, file: dict[str, Any] | None = None
) -> Any:
    """Return the settings of `tasks-api serve`, given flags, environment variables and the content of `.env`."""
    (folder / ".env").write_text("".join(f'{name}="{value}"\n' for name, value in (file or {}).items()), "utf-8")
    strings = {name: str(value) for name, value in (variables or {}).items()}
    # Remove the settings that the tests' environment contains.
    base_environment = {name: value for name, value in environment().items() if not name.startswith(PREFIX)}
    with (
        patch("tests.support.inside.environment", lambda _: base_environment | strings),
        patch("handlers.commands.service.serve") as served,
        patch("handlers.observability.metrics.serve"),
    ):
        result = inside.run(folder, "serve", *flags)
    assert result.returncode == 0, result.stderr
    ((settings,), _) = served.call_args
    return settings


@pytest.mark.parametrize("name", NAMES)
def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path, name: str) -> None:
    """A value takes precedence even if it equals the default, or is empty, zero or false."""
    name_in_environment = variable(name)
    for value in (default(name), other(name), minimum(name)):
        losing_value = other(name) if value != other(name) else default(name)
        losing = {name_in_environment: losing_value}

        assert getattr(read_settings(tmp_path, flag(name, value), variables=losing, file=losing), name) == value
        assert getattr(read_settings(tmp_path, variables={name_in_environment: value}, file=losing), name) == value
        assert getattr(read_settings(tmp_path, file={name_in_environment: value}), name) == value
    assert getattr(read_settings(tmp_path), name) == default(name)


class Started(NamedTuple):
    """The settings and the uvicorn configuration with which a server process starts."""

    settings: ServerSettings
    config: uvicorn.Config


@pytest.fixture
def started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Started]]:
    """Make `serve` record its settings instead of serving, and yield the list of records."""
    started: list[Started] = []

    def run(self: Any, sockets: list[socket.socket] | None = None) -> None:
        started.append(Started(ServerSettings(), self.config))
        for listener in sockets or self.sockets:
            listener.close()

    # It would block the signal in this process, and in those that later tests start.
    monkeypatch.setattr("handlers.server.serve._handle_interrupts", Mock())
    for runner in (uvicorn.Server, Multiprocess, ChangeReload):
        monkeypatch.setattr(runner, "run", run)
    # Do not let uvicorn change the logging configuration of the tests.
    monkeypatch.setattr(uvicorn.Config, "configure_logging", lambda _: None)
    sigterm_handler, file_limit = signal.getsignal(signal.SIGTERM), resource.getrlimit(resource.RLIMIT_NOFILE)
    with chdir(tmp_path), patch.dict(os.environ, environment(), clear=True):
        yield started
    signal.signal(signal.SIGTERM, sigterm_handler)
    resource.setrlimit(resource.RLIMIT_NOFILE, file_limit)


@pytest.mark.parametrize("value", [default, other, minimum])
def test_workers_have_the_settings_of_the_command(
    tmp_path: Path, started: list[Started], value: Callable[[str], Any]
) -> None:
    """Workers read their settings from the environment, so the command must overwrite the variables with its flags."""
    fixed = {"port": 0, "workers": 2, "database_url": "sqlite:///tasks.db"}
    values = {name: fixed.get(name, value(name)) for name in NAMES}
    losing = {variable(name): other(name) if values[name] != other(name) else default(name) for name in NAMES}
    settings = read_settings(
        tmp_path, *(flag(name, value_) for name, value_ in values.items()), variables=losing, file=losing
    )
    os.environ.update({name: str(value_) for name, value_ in losing.items()})

    serve(settings)

    assert started[0].settings.model_dump() == values


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client_end = socket.create_connection(listener.getsockname())
        return listener.accept()[0], client_end


@pytest.mark.slow
@pytest.mark.parametrize(("seconds", "milliseconds"), [(0.5, 500), (1.25, 1250), (10, 10_000), (0.001, 1)])
def test_request_timeout_sets_tcp_user_timeout(
    tmp_path: Path, started: list[Started], seconds: float, milliseconds: int
) -> None:
    """The option TCP_USER_TIMEOUT has a resolution of one millisecond."""
    serve(read_settings(tmp_path, "--port=0", f"--request-timeout={seconds}"))
    config = started[0].config
    config.load()

    async def connect() -> int:
        state = ServerState()
        protocol = config.http_protocol_class(config=config, server_state=state, app_state={})  # type: ignore[call-arg]
        server_end, client_end = tcp_pair()
        with client_end:
            transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: protocol, server_end)
            option: int = server_end.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            transport.abort()
            await asyncio.sleep(0)
        return option

    assert asyncio.run(connect()) == milliseconds


@pytest.mark.parametrize("name", ["port", "database_url", "access_log", "request_timeout", "trusted_proxies"])
@pytest.mark.parametrize(("before", "after"), [("", "\r"), (" ", "  "), ("\t", "\r\n"), ("\n", "\N{NO-BREAK SPACE}")])
def test_values_are_trimmed(tmp_path: Path, name: str, before: str, after: str) -> None:
    """Carriage returns come from files that were written on Windows."""
    value = f"{before}{str(other(name)).lower()}{after}"
    in_file = value.replace("\r", r"\r").replace("\n", r"\n")
    flags = () if name == "access_log" else (f"--{name.replace('_', '-')}", value)

    for settings in (
        read_settings(tmp_path, variables={variable(name): value}),
        read_settings(tmp_path, file={variable(name): in_file}),
        read_settings(tmp_path, *(flags or ["--access-log"])),
    ):
        assert getattr(settings, name) == other(name)


@pytest.mark.parametrize("value", ["tcp://10.96.14.3:8000", "udp://10.96.14.3:53", "sctp://[fd00::3]:8000"])
def test_port_of_a_service_in_kubernetes_is_ignored(tmp_path: Path, value: str) -> None:
    """Kubernetes injects it for a Service that has the name of the command, as `docker --link` does."""
    injected = {f"{PREFIX}PORT": value}

    assert read_settings(tmp_path, variables=injected).port == default("port")
    assert read_settings(tmp_path, variables=injected | {"PORT": "5000"}).port == 5000
    assert read_settings(tmp_path, variables=injected, file={f"{PREFIX}PORT": "5001"}).port == 5001
    assert read_settings(tmp_path, "--port=5002", variables=injected).port == 5002


def test_port_of_the_platform_counts_where_no_other_is_set(tmp_path: Path) -> None:
    platform, own = {"PORT": " 5000\r"}, {f"{PREFIX}PORT": "5001"}

    assert read_settings(tmp_path, variables=platform).port == 5000
    assert read_settings(tmp_path, variables=platform | own).port == 5001
    assert read_settings(tmp_path, variables=platform, file=own).port == 5001
    assert read_settings(tmp_path, "--port=5002", variables=platform).port == 5002
    assert read_settings(tmp_path, variables={"PORT": " "}).port == default("port")
    # In the file, it may be meant for another program.
    assert read_settings(tmp_path, file={"PORT": "5000"}).port == default("port")


@pytest.mark.parametrize("value", ["http", "65536", "tcp://10.96.14.3:8000"])
def test_invalid_port_of_the_platform_is_named(tmp_path: Path, value: str) -> None:
    with patch("handlers.commands.service.serve"):
        failed = inside.run(tmp_path, "serve", variables={"PORT": value})

    assert failed.returncode == 1
    assert failed.stderr.startswith(f"--port, {PREFIX}PORT or PORT: ")
    assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("host", ["localhost", "0.0.0.0", "::", "::1", "node-1.example.com", "fe80::1%lo"]),
        ("trusted_proxies", ["10.0.0.5", "10.0.0.0/8, ::1", "10.0.0.0/255.0.0.0", "fe80::1%eth0"]),
        ("allowed_origins", ["https://a,", ",https://a", "", "*", "https://a, http://b:8 https://c"]),
        ("allowed_origins", ["capacitor://localhost,http://[::1]:3000 https://example.com.", "app://-, file://, *"]),
        (
            "public_url",
            [
                "HTTPS://Example.com/",
                "https://bücher.example",
                "http://[::1]:8000/x",
                "https://h/{a}b",
            ],
        ),
        ("rate_limit_storage", ["redis://:p@ss@host:6379", "REDIS://host:1", "rediss://host:06379/0"]),
        ("metrics", ["127.0.0.1:09464", "[::1]:9464"]),
        ("request_timeout", [0.001, 86_400]),
        ("idempotency_hours", [0.001, 876_000]),
    ],
)
def test_usual_spellings_are_accepted(name: str, values: list[Any]) -> None:
    for value in values:
        assert getattr(ServerSettings.model_validate({name: value}), name) == value


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "allowed_origins",
            ["a.example", "https://a/", "null", "ftp://a", "https://a, b", "*x", "https://a/b,https://c"],
        ),
        (
            "allowed_origins",
            ["ws://a", "file:///a", "localhost:3000", "https://a:65536", "https://u:p@a", "https://a;b"],
        ),
        ("public_url", ["https://u:p@h", "https://u@h", "https://:p@h"]),
        ("public_url", ["https://", "https://:80", "h", "ftp://h", "https://h?x", "https://h#x", "https://a b"]),
        ("public_url", ["https://h:65536", "http://[::g]", "http://999.1.1.1", f"https://h/{'a' * 2084}"]),
        ("rate_limit_storage", ["redis://h", "http://h:1", "redis://h:1/x", "redis://h:1?x", "redis://[127.0.0.1]:1"]),
        ("rate_limit_storage", ["redis://:a[b@h:1", "redis://:a\u2100b@h:1", "redis://:a/b@h:1", "redis://:a b@h:1"]),
        ("metrics", ["127.0.0.1:0", "127.0.0.1:65536", ":9464", "a b:9464"]),
        ("request_timeout", [0, float("inf"), float("nan"), 1e300]),
        ("idempotency_hours", [0, float("inf"), float("nan"), 1e300]),
        ("trusted_proxies", ["localhost", "10.0.0.0/8,"]),
    ],
)
def test_unusable_values_are_refused(name: str, values: list[Any]) -> None:
    for value in values:
        with pytest.raises(ValidationError) as caught:
            ServerSettings.model_validate({name: value})
        # The value may contain a password, and a traceback would show it.
        assert "input_value" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("port", "70000", "write an integer from 0 to 65535, not 70000"),
        ("port", "1e3", "write an integer from 0 to 65535, not 1e3"),
        ("port", "postgresql://a:b@c", "write an integer from 0 to 65535, not this value"),
        ("port", "", "write an integer from 0 to 65535, not an empty value"),
        ("port", '"8000"', 'write an integer from 0 to 65535, not "8000"'),
        ("workers", "0", "write an integer of at least 1, not 0"),
        ("workers", "two", "write an integer of at least 1, not two"),
        ("keep_alive_timeout", "1.5", "write an integer from 1 to 86400, not 1.5"),
        ("request_timeout", "nan", "write a number above 0, up to 86400, not nan"),
        ("reload", "maybe", "write true or false, not maybe"),
        ("host", "[::1]", "write ::1 instead"),
        ("host", "[::1]:80", "write ::1 instead, and the port as --port"),
        ("host", "http://localhost/", "write localhost instead"),
        ("host", "127.0.0.1:8000", "write 127.0.0.1 instead, and the port as --port"),
        *(
            ("host", host, "write an address of this machine, such as 127.0.0.1 or ::1, or 0.0.0.0 for all")
            for host in ("", "*", "a b", "http://a:b@c", "https://a/b")
        ),
        *(
            ("trusted_proxies", text, "write IP addresses or networks, such as 10.0.0.0/8,127.0.0.1, and no names")
            for text in ("nginx", "*", "10.0.0.0/33", "10.0.0.1;10.0.0.2")
        ),
        ("trusted_proxies", "fe80::1%eth0/64", "write fe80::/64 instead of fe80::1%eth0/64"),
        ("trusted_proxies", "::1, 10.0.0.5/8", "write 10.0.0.0/8 instead of 10.0.0.5/8"),
        *(
            ("allowed_origins", origin, f"write {sent}, as browsers send it")
            for origin, sent in {
                "HTTPS://a": "https://a",
                "https://App.example": "https://app.example",
                "https://a:443": "https://a",
                "http://a:80, https://b": "http://a",
                "https://a:": "https://a",
                "https://a:08443": "https://a:8443",
                "https://b\u00fccher.example": "https://xn--bcher-kva.example",
                "https://a/": "https://a",
                "https://a/b?c#d": "https://a",
                "http://127.1:3000": "http://127.0.0.1:3000",
                "http://[0::1]": "http://[::1]",
                "capacitor://localhost/": "capacitor://localhost",
                "Tauri://localhost": "tauri://localhost",
                "file:///a": "file://",
            }.items()
        ),
        *(
            ("allowed_origins", origin, "write each origin instead of a pattern, or * alone for all origins")
            for origin in ("https://*.example.com", "https://*", "chrome-extension://*", "https://a:*")
        ),
        *(
            (
                "allowed_origins",
                origin,
                "write it as https://app.example.com, separated by commas, or * for all origins",
            )
            for origin in ("null", "a.example", "https://a:b@c", "https://a:b", "HTTPS://a:12,3@b")
        ),
    ],
)
def test_sentence_says_what_to_write(tmp_path: Path, name: str, value: str, sentence: str) -> None:
    failed = inside.run(tmp_path, "serve", variables={variable(name): value})

    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == f"--{name.replace('_', '-')} or {variable(name)}: {sentence}.\n"
