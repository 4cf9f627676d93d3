"""All settings. A flag overrides the environment, which overrides the file `.env`, which overrides the default."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from ipaddress import ip_address, ip_interface
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, HttpUrl, field_validator
from pydantic_core import Url
from pydantic_settings import BaseSettings

from handlers import environment
from handlers.contract import document
from handlers.contract.document import PREFIX
from models.database.address import CONNECTIONS
from models.database.errors import require

LONGEST_WINDOW = 24 * 60 * 60  # seconds; a longer Retry-After would be of no use to a client
RETENTION_HOURS = 24  # of a contract that says nothing else
HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+)"
PORT = r"0*(?:[1-9]\d{0,3}|[1-5]\d{4}|6[0-4]\d{3}|65[0-4]\d\d|655[0-2]\d|6553[0-5])"
# An origin in its ASCII serialization, which browsers send. Apps have schemes of their own, or pages in files.
WEB_ORIGIN = rf"https?://{HOST}(?::\d+)?(?=/|$)"
APP_ORIGIN = r"file://(?=/)|(?!(?:https?|wss?|ftp):)[a-z][a-z\d+.-]*://[^/?#]+"
ORIGIN = re.compile(f"{WEB_ORIGIN}|{APP_ORIGIN}", re.ASCII)
ORIGIN_HINT = "write it as https://app.example.com, separated by commas, or * for all origins"
KINDS: dict[Any, str] = {int: "an integer", float: "a number", bool: "true or false"}
BOUNDS = {"ge": "of at least", "gt": "above", "le": "up to"}


def _checked(is_valid: Callable[[str], object], hint: str) -> AfterValidator:
    """Return a validator of a string that is empty or valid. The hint shows how to write the setting."""

    def check(text: str) -> str:
        with suppress(ValueError):
            if not text or is_valid(text):
                return text
        raise ValueError(f"write it as {hint}")

    return AfterValidator(check)


def _are_limits(text: str) -> bool:
    require("limits", "rate-limits", "--rate-limit")
    from limits import parse_many  # noqa: PLC0415, installed with an extra

    return all(limit.amount and limit.get_expiry() <= LONGEST_WINDOW for limit in parse_many(text))


def _retention_hours() -> float:
    """Return the `x-retention-hours` of the first parameter that has them."""
    operations = document.operations().values()
    parameters = [parameter for operation in operations for parameter in operation.parameters.values()]
    return next((item["x-retention-hours"] for item in parameters if "x-retention-hours" in item), RETENTION_HOURS)


def _check_networks(text: str) -> str:
    for network in text.split(",") if text else ():
        try:
            interface = ip_interface(network.strip())
        except ValueError:
            raise ValueError("write IP addresses or networks, such as 10.0.0.0/8,127.0.0.1, and no names") from None
        if "/" in network and interface.ip != interface.network.network_address:
            raise ValueError(f"write {interface.network} instead of {interface}")
    return text


def _check_host(text: str) -> str:
    if re.fullmatch(r"[\w.-]+", text, re.ASCII):
        return text
    with suppress(ValueError):
        ip_address(text)
        return text
    if match := re.fullmatch(rf"(?:https?://)?({HOST})(:\d*)?/?", text, re.ASCII):
        port = ", and the port as --port" if match[2] else ""
        raise ValueError(f"write {match[1].strip('[]')} instead{port}")
    raise ValueError("write an address of this machine, such as 127.0.0.1 or ::1, or 0.0.0.0 for all")


def _check_origins(text: str) -> str:
    if "@" in text:
        # The text before it may be a password.
        raise ValueError(ORIGIN_HINT)
    for origin in text.replace(",", " ").split():
        if origin != "*" and (canonical := _canonical_origin(origin)) != origin:
            raise ValueError(f"write {canonical}, as browsers send it")
    return text


def _canonical_origin(text: str) -> str:
    if "*" in text:
        raise ValueError("write each origin instead of a pattern, or * alone for all origins")
    with suppress(ValueError):
        if origin := ORIGIN.match(str(Url(text))):
            return origin[0]
    raise ValueError(ORIGIN_HINT)


def _is_url(text: str) -> bool:
    url = HttpUrl(text)
    return not (url.username or url.password or url.query is not None or url.fragment is not None)


def _is_redis_url(text: str) -> object:
    # redis-py parses the URL with `urlsplit`, whose errors repeat the password.
    return re.fullmatch(rf"(?i:rediss?)://([^/?#\s]*@)?{HOST}:{PORT}(/\d*)?", text, re.ASCII) and urlsplit(text)


Host = Annotated[str, AfterValidator(_check_host)]
Networks = Annotated[str, AfterValidator(_check_networks)]
Limits = Annotated[
    str, _checked(_are_limits, "100/second;5000/hour, with at least one request and at most a day in each")
]
Listener = Annotated[str, _checked(re.compile(f"{HOST}:{PORT}", re.ASCII).fullmatch, "127.0.0.1:9464 or [::1]:9464")]
PublicUrl = Annotated[
    str, _checked(_is_url, "https://api.example.com/prefix, without a user name, password, query or fragment")
]
Origins = Annotated[str, AfterValidator(_check_origins)]
RedisUrl = Annotated[
    str, _checked(_is_redis_url, "redis://127.0.0.1:6379/0, and percent-encode a password, for example %2F for /")
]


class Settings(
    BaseSettings,
    env_prefix=PREFIX,
    extra="ignore",
    hide_input_in_errors=True,
    use_attribute_docstrings=True,
):
    """The settings of every command."""

    # The alias keeps the name that hosting platforms use: DATABASE_URL, without the prefix.
    database_url: str = Field(default=f"sqlite:///{document.NAME}.db", validation_alias="database_url")
    """database: sqlite:/// and the path of a file, or the URL of a postgresql:// server"""

    @classmethod
    def settings_customise_sources(cls, settings_cls: Any, init_settings: Any, *_: Any, **__: Any) -> Any:
        """Read flags, then the environment, then the file `.env`."""
        return (init_settings, *environment.sources(settings_cls))

    @field_validator("*", mode="before")
    @classmethod
    def strip(cls, value: Any) -> Any:
        """Remove spaces and line breaks around a value, such as the carriage return of a file from Windows."""
        return value.strip() if isinstance(value, str) else value


class ServerSettings(Settings):
    """The settings of the server."""

    host: Host = "127.0.0.1"
    """address to listen on"""
    port: int = Field(default=8000, ge=0, le=65535)
    """port to listen on; 0 for any free port"""
    workers: int = Field(default=1, ge=1)
    """number of worker processes"""
    database_connections: int = Field(default=CONNECTIONS, ge=1)
    """size of each worker's connection pool for PostgreSQL"""
    reload: bool = False
    """restart when the code or the contract changes"""
    trusted_proxies: Networks = ""
    """addresses of proxies whose X-Forwarded-Proto and X-Forwarded-For to trust, separated by commas"""
    public_url: PublicUrl = ""
    """URL of the service in responses and in the published contract; by default that of the request"""
    insecure_open: bool = False
    """listen on another address than loopback without any API key"""
    allowed_origins: Origins = ""
    """origins of web pages that may call the service (CORS), separated by commas"""
    max_connections: int = Field(default=4000, ge=1)
    """maximum number of client connections per worker"""
    # Clients and proxies usually keep idle connections for up to a minute. A request that a client sends while the
    # service closes the connection is lost.
    keep_alive_timeout: int = Field(default=75, ge=1, le=86_400)
    """timeout in seconds for idle connections, longer than those of proxies"""
    request_timeout: float = Field(default=document.responses(None)["408"]["x-seconds"], gt=0, le=86_400)
    """timeout in seconds for receiving a request and for sending a response"""
    shutdown_timeout: int = Field(default=10, ge=0)
    """timeout in seconds for running requests after SIGTERM"""
    idempotency_hours: float = Field(default=_retention_hours(), gt=0, le=876_000)
    """retention in hours of the response to a POST with an Idempotency-Key"""
    gzip_min_size: int = Field(default=4096, ge=0)
    """size in bytes from which lists are compressed for clients that accept gzip; 0 for never"""
    access_log: bool = False
    """write a line of JSON per request to standard output"""
    metrics: Listener = ""
    """address on which to serve Prometheus metrics, such as 127.0.0.1:9464"""
    rate_limit: Limits = ""
    """maximum number of requests per client and window, such as 100/second;5000/hour"""
    rate_limit_storage: RedisUrl = ""
    """Redis server that counts requests for all workers and nodes, such as redis://127.0.0.1:6379/0"""
    validate_responses: bool = False
    """answer 500 when a response violates the contract; for tests"""


def variable(name: str) -> str:
    """Return the environment variable of a setting."""
    alias = ServerSettings.model_fields[name].validation_alias
    return (str(alias) if alias else f"{Settings.model_config['env_prefix']}{name}").upper()


def expected(name: str) -> str:
    """Return what the value of a number or a boolean must be, such as "an integer from 0 to 65535"."""
    field = ServerSettings.model_fields[name]
    bounds = {key: value for bound in field.metadata for key, value in asdict(bound).items()}
    words = ", ".join(f"{BOUNDS[key]} {value}" for key, value in bounds.items())
    if {"ge", "le"} <= bounds.keys():
        words = f"from {bounds['ge']} to {bounds['le']}"
    return f"{KINDS[field.annotation]} {words}".rstrip()
