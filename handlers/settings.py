"""What can be set: by a flag, in the environment, or in a file `.env`; the first of these that says it wins."""

import re
from ipaddress import ip_network
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from handlers.contract import document as contract
from models.database.address import CONNECTIONS

ORIGIN = re.compile(r"https?://[^/?#@\s]+", re.ASCII)


def _networks(text: str) -> str:
    for address in text.split(",") if text else []:
        ip_network(address.strip())
    return text


def _origins(text: str) -> str:
    for origin in text.replace(",", " ").split():
        if origin != "*" and not ORIGIN.fullmatch(origin):
            raise ValueError("give them as https://app.example.com, with commas between, or * for any")
    return text


def _address(text: str) -> str:
    url = urlsplit(text)
    if text and (url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment):
        raise ValueError("give it as https://tasks.example.com")
    return text.rstrip("/")


def _listener(text: str) -> str:
    found = re.fullmatch(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.-]+):([0-9]{1,5})", text, re.ASCII)
    if text and not (found and 0 < int(found[1]) <= 65535):  # noqa: PLR2004
        raise ValueError("give it as 127.0.0.1:9464 or [::1]:9464")
    return text


def _limits(text: str) -> str:
    if text:
        # The library takes memory that only a service with limits has use for.
        from limits import parse_many  # noqa: PLC0415

        longest = contract.document()["components"]["headers"]["RetryAfter"]["schema"]["maximum"]
        try:
            usable = all(limit.amount and limit.get_expiry() <= longest for limit in parse_many(text))
        except ValueError:
            usable = False
        if not usable:
            raise ValueError("give it as 100/second;5000/hour, with at least one request and at most a day in each")
    return text


def _redis(text: str) -> str:
    url = urlsplit(text)
    usable = url.scheme in ("redis", "rediss") and url.hostname and url.port and re.fullmatch("(/[0-9]*)?", url.path)
    if text and (not usable or url.query or url.fragment):
        raise ValueError("give it as redis://127.0.0.1:6379/0")
    return text


class Settings(BaseSettings):
    """What every command needs to know."""

    model_config = SettingsConfigDict(env_file=".env", env_prefix="TASKS_API_", extra="ignore")

    # The alias keeps the name that hosting platforms give this variable: DATABASE_URL, without the prefix.
    database_url: Annotated[
        str,
        Field(
            description="the database: sqlite:/// and the path of a file, or the address of a postgresql:// server",
            validation_alias="database_url",
        ),
    ] = "sqlite:///tasks.db"


class ServerSettings(Settings):
    """What the server needs to know."""

    host: Annotated[str, Field(description="the address to listen on")] = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535, description="the port to listen on; 0 takes any that is free")] = 8000
    workers: Annotated[int, Field(ge=1, description="how many processes answer")] = 1
    database_connections: Annotated[
        int, Field(ge=1, description="how many connections each process may have to a database server")
    ] = CONNECTIONS
    reload: Annotated[bool, Field(description="restart when the code or the contract changes")] = False
    trusted_proxies: Annotated[
        str,
        AfterValidator(_networks),
        Field(
            description="addresses of proxies whose X-Forwarded-Proto and X-Forwarded-For count, with commas between"
        ),
    ] = ""
    public_url: Annotated[
        str,
        AfterValidator(_address),
        Field(description="the address of the service in the published document; else the one at which that was read"),
    ] = ""
    insecure_open: Annotated[
        bool, Field(description="listen on another address than loopback although no key was made")
    ] = False
    allowed_origins: Annotated[
        str,
        AfterValidator(_origins),
        Field(description="where pages come from that may call the service from a browser, with commas between"),
    ] = ""
    max_connections: Annotated[
        int, Field(ge=1, description="how many connections each process may have with callers at the same time")
    ] = 4000
    request_timeout: Annotated[
        float, Field(gt=0, description="for how many seconds a request may arrive, and an answer wait to be read")
    ] = contract.responses(None)["408"]["x-seconds"]
    shutdown_timeout: Annotated[
        int, Field(ge=0, description="for how many seconds the requests that have begun may go on after SIGTERM")
    ] = 10
    idempotency_hours: Annotated[
        float, Field(gt=0, description="for how many hours the answer to a POST with an Idempotency-Key is kept")
    ] = contract.specification()["components"]["parameters"]["IdempotencyKey"]["x-retention-hours"]
    access_log: Annotated[bool, Field(description="write a line of JSON for each request to standard output")] = False
    metrics: Annotated[
        str,
        AfterValidator(_listener),
        Field(description="the address on which Prometheus can read metrics, such as 127.0.0.1:9464"),
    ] = ""
    rate_limit: Annotated[
        str,
        AfterValidator(_limits),
        Field(description="how many requests a caller may make in which time, as in 100/second;5000/hour"),
    ] = ""
    rate_limit_storage: Annotated[
        str,
        AfterValidator(_redis),
        Field(
            description="where they are counted for several processes: a Redis server, as in redis://127.0.0.1:6379/0"
        ),
    ] = ""
    validate_responses: Annotated[
        bool, Field(description="answer 500 where an answer would break the contract; for tests")
    ] = False


def variable(name: str) -> str:
    """Return the name of the environment variable that sets a setting."""
    alias = ServerSettings.model_fields[name].validation_alias
    return (str(alias) if alias else f"{Settings.model_config['env_prefix']}{name}").upper()
