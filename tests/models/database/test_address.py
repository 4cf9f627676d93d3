"""Database URLs: which are accepted, and that no message repeats a part of a password."""

import asyncio
from pathlib import Path
from urllib.parse import unquote

import pytest
from psycopg.conninfo import conninfo_to_dict

from models.database.address import open_database
from models.database.errors import ConfigurationError
from tests.support.calls import wait_until

# No two characters follow each other twice, so every part of four characters is a secret.
SECRET = "Qz7Xk9Wv"
SPECIAL = ["/", "@", "?a=", "%", " ", "%zz", "%ff", "%00", "\udcff", "/@", "@/", "\n@", "?a=/", ":/", "/?@", "@["]


def parts(secret: str) -> list[str]:
    return [secret[start : start + 4] for start in range(len(secret) - 3)]


@pytest.mark.parametrize(
    "url",
    [
        *(
            "postgresql://ann:{}@127.0.0.1:1/tasks",
            "postgres://:{}@127.0.0.1:1,[::1]:2",
            "cockroachdb://ann:{}@h/tasks",
        ),
        *("sqlite://ann:{}@h/tasks", "sqlite:///ann:{}@h/tasks", "sqlite:////ann:{}@h/tasks.db"),
        *("sqlite:///tasks.db?password={}", "mysql://ann:{}@h/tasks", "host=127.0.0.1 password={}", "{}"),
        *("POSTGRESQL://ann:{}@h/tasks", "postgresql+psycopg://ann:{}@h/tasks"),
    ],
)
def test_unusable_url_is_refused_without_a_part_of_the_password(url: str) -> None:
    for special in SPECIAL:
        with pytest.raises(ConfigurationError) as caught:
            open_database(url.format(SECRET[:4] + special + SECRET[4:]), setting="--to")

        assert str(caught.value).startswith("--to ")
        assert not [part for part in parts(SECRET) if part in str(caught.value)]


def test_password_in_place_of_the_port_is_not_repeated() -> None:
    with pytest.raises(ConfigurationError, match=r"percent-encode the password, such as %40 for @ and %2F for /, in "):
        open_database(f"postgresql://ann:{SECRET}/tasks")


@pytest.mark.parametrize("url", ["postgresql://h:1/tasks?password={}", "postgresql:///?host=/run&password={}&user=ann"])
def test_password_as_a_parameter_is_not_repeated(url: str) -> None:
    for special in ["&", "@", "=", "%", " ", "&a="]:
        with pytest.raises(ConfigurationError) as caught:
            open_database(url.format(SECRET[:4] + special + SECRET[4:]))

        assert not [part for part in parts(SECRET) if part in str(caught.value)]


@pytest.mark.parametrize("password", ["a%40b%2Fc%3Fd", "a%20b%25", "a?b#c:d%3D", "\u00e4&=[;"])
def test_password_arrives_unchanged(password: str) -> None:
    """Characters that are not ambiguous need no encoding."""
    database = open_database(f"postgresql://ann:{password}@127.0.0.1:1,[::1]:2,h/tasks?sslmode=disable")

    given = conninfo_to_dict(database.database)
    assert (given["password"], given["host"]) == (unquote(password), "127.0.0.1,::1,h")


@pytest.mark.parametrize(
    "url",
    [
        *(
            "postgresql://",
            "postgresql:///tasks",
            "postgresql://h",
            "postgres://h:/tasks",
            "postgresql://[::1]:1/tasks",
        ),
        *("postgresql://%2Frun%2Fpostgresql/tasks", "postgresql:///tasks?host=/run/postgresql&user=a%40b"),
        *("postgresql://ann@h/tasks", "postgresql://ann:@h/tasks", "postgresql://?host=h", "cockroachdb://ann:p@h?a=b"),
    ],
)
def test_usual_urls_are_accepted(url: str) -> None:
    assert open_database(url.replace("a=b", "sslmode=require")).database.startswith("postgresql://")


def test_parameter_that_does_not_exist_is_named() -> None:
    with pytest.raises(
        ConfigurationError, match=r'^DATABASE_URL is not a valid .*: invalid URI query parameter: "sslmod".$'
    ):
        open_database("postgresql://ann:secret@h/tasks?sslmod=require")


def test_file_with_colon_and_at_sign_is_opened_if_it_exists(tmp_path: Path) -> None:
    file = tmp_path / "a:b@c.db"
    with pytest.raises(ConfigurationError, match=r"^DATABASE_URL must name a SQLite file"):
        open_database(f"sqlite:///{file}")
    file.touch()

    assert open_database(f"sqlite:///{file}").database == str(file)


@pytest.mark.slow
def test_pool_logs_no_part_of_the_password(caplog: pytest.LogCaptureFixture) -> None:
    async def connect() -> None:
        database = open_database(f"postgresql://ann:{SECRET}%40@127.0.0.1:1/tasks")
        await database.start()
        await asyncio.to_thread(wait_until, lambda: bool(caplog.records))
        await database.shut_down()

    asyncio.run(connect())

    assert "error connecting" in caplog.text
    assert not [part for part in parts(SECRET) if part in caplog.text]
