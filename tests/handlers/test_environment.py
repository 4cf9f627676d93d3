"""The file `.env`, and variables that are no settings."""

import codecs
from pathlib import Path

import pytest

from handlers.contract.document import PREFIX
from tests.support import inside
from tests.support.service import Start

SECRET = "s3cr3t"
URL = f"DATABASE_URL=postgresql://user:{SECRET}@database/data"
SYNTAX = "write NAME=value, and close every quote"
ENCODING = "the file is not in UTF-8; save it in UTF-8"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_usual_files_are_read(tmp_path: Path, encoding: str, newline: str) -> None:
    lines = [
        '# DATABASE_URL: a comment, even with a colon, a " quote and a \N{SNOWMAN}',
        "",
        "  export DATABASE_URL = 'sqlite:///from-file.db' # another comment",
        "other.name-2=1",
        "EMPTY=",
        'TEXT="two\nlines"',
        "'QUOTED'=${EMPTY}x",
        "NAME=a: b",
    ]
    (tmp_path / ".env").write_bytes(newline.join(lines).encode(encoding))

    result = inside.run(tmp_path, "migrate")

    assert (result.returncode, result.stderr) == (0, "")
    assert (tmp_path / "from-file.db").exists()


@pytest.mark.parametrize(
    ("content", "line", "hint"),
    [
        *((URL.encode(encoding), 1, ENCODING) for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
        (f"A=1\r\n\r\nB=caf\N{LATIN SMALL LETTER E WITH ACUTE}\r\n{URL}".encode("latin-1"), 3, ENCODING),
        (codecs.BOM_UTF8 + b"A=1\n\xff", 2, ENCODING),
        *(
            (f"A=1\n\n# A\n\n{line}\nB=1\n".encode(), 5, SYNTAX)
            for line in (
                URL.replace("=", ": ", 1),
                URL.replace("=", ":", 1),
                URL.replace("=", ":", 1) + "?sslmode=require",
                URL.replace("=", " ", 1),
                URL.replace("=", '="', 1),
                URL.replace("=", "='", 1),
                URL.replace("=", "='", 1) + "' b",
                "DATABASE_URL",
                f"$env:{URL}",
                f"set {URL}",
                f"; {URL}",
                "[settings]",
                f'{{"DATABASE_URL": "{SECRET}"}}',
                f"={SECRET}",
                f"- {URL}",
            )
        ),
    ],
)
def test_unreadable_line_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, line: int, hint: str
) -> None:
    monkeypatch.setattr("handlers.commands.service.serve", print)
    (tmp_path / ".env").write_bytes(content)

    for command in (["serve"], ["check"], ["migrate"], ["key", "list"], ["backup", "copy.db"]):
        failed = inside.run(tmp_path, *command)
        assert (failed.returncode, failed.stdout) == (1, "")
        assert failed.stderr == f"{tmp_path}/.env, line {line}: {hint}.\n"
    assert inside.run(tmp_path, "--version").returncode == 0
    assert [path.name for path in tmp_path.iterdir()] == [".env"]


def test_unreadable_file_is_named(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()

    failed = inside.run(tmp_path, "migrate")

    assert failed.returncode == 1
    assert failed.stderr.startswith(f"{tmp_path}/.env cannot be read: Is a directory; ")
    assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        (f"{PREFIX}PROT", f"{PREFIX}PORT"),
        (f"{PREFIX}_PORT", f"{PREFIX}PORT"),
        (f"{PREFIX}ALLOWED_ORIGIN", f"{PREFIX}ALLOWED_ORIGINS"),
        (f"{PREFIX}HOSTNAME", f"{PREFIX}HOST"),
        (f"{PREFIX}DATABASE_URL", "DATABASE_URL"),
        (f"{PREFIX}DATABASE_URI", "DATABASE_URL"),
        (f"{PREFIX}acess_log".lower(), f"{PREFIX}ACCESS_LOG"),
        (f"{PREFIX}METRICS_PORT", f"{PREFIX}METRICS"),
        (f"{PREFIX[0]}{PREFIX}PORT", f"{PREFIX}PORT"),
        ("DATABSE_URL", "DATABASE_URL"),
        (f"{PREFIX}VERSION", None),
        (PREFIX, None),
    ],
)
def test_misspelt_variable_is_named_without_its_value(tmp_path: Path, name: str, meant: str | None) -> None:
    sentence = f"{name} is not a setting and was ignored{f'; did you mean {meant}?' if meant else '.'}\n"

    for variables, file in (({name: SECRET}, ""), ({}, f"{name}={SECRET}"), ({name: SECRET}, f"{name}={SECRET}")):
        (tmp_path / ".env").write_text(file, "utf-8")
        for command in (["check"], ["migrate"], ["key", "new", "app"], ["backup", "missing/copy.db"]):
            result = inside.run(tmp_path, *command, variables=variables)
            assert result.stderr.count(sentence) == 1
            assert SECRET not in result.stderr
    assert inside.run(tmp_path, "--version", variables={name: SECRET}).stderr == ""
    assert {path.name for path in tmp_path.glob("*.db")} == {f"{PREFIX.split('_')[0].lower()}.db"}


@pytest.mark.parametrize("service", ["", "METRICS_", "DATABASE_URL_", "PORT_"])
def test_variables_that_platforms_inject_are_not_named(tmp_path: Path, service: str) -> None:
    """Kubernetes and `docker --link` inject them, here also for other services whose names begin like the command."""
    injected = {
        "SERVICE_HOST": "10.96.14.3",
        "SERVICE_PORT": "8000",
        "SERVICE_PORT_HTTP": "8000",
        "PORT": "tcp://10.96.14.3:8000",
        "PORT_8000_TCP": "tcp://10.96.14.3:8000",
        "PORT_8000_TCP_PROTO": "tcp",
        "PORT_8000_TCP_PORT": "8000",
        "PORT_8000_TCP_ADDR": "10.96.14.3",
        "PORT_53_UDP": "udp://10.96.14.3:53",
        "PORT_53_UDP_ADDR": "10.96.14.3",
        "NAME": "/web/api",
        "ENV_PATH": "/bin\n",
    }

    result = inside.run(
        tmp_path, "migrate", variables={f"{PREFIX}{service}{name}": value for name, value in injected.items()}
    )

    assert (result.returncode, result.stderr) == (0, "")


@pytest.mark.parametrize("name", [f"{PREFIX}KEY", "VERSION", "HOST", "PORT", "METRICS", "URL", "DATABASE_HOST"])
def test_variables_of_clients_and_other_programs_are_not_named(tmp_path: Path, name: str) -> None:
    (tmp_path / ".env").write_text(f"{name}=tcp://10.0.0.1:80\n", "utf-8")

    result = inside.run(tmp_path, "migrate", variables={name: "tcp://10.0.0.1:80"})

    assert (result.returncode, result.stderr) == (0, "")


def test_misspelt_variable_is_named_once_at_the_start(start: Start) -> None:
    service = start("--workers", "2", variables={f"{PREFIX}PROT": "80", f"{PREFIX}PORT": "tcp://10.96.14.3:8000"})

    assert service.client.get("/health/ready").status_code == 200
    assert service.stop() == 0
    assert service.log() == f"{PREFIX}PROT is not a setting and was ignored; did you mean {PREFIX}PORT?\n"
