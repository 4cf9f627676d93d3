"""The command line: unknown commands and flags get a hint, and no message repeats a password."""

from pathlib import Path

import pytest

from handlers.contract.document import COMMAND
from handlers.settings import ServerSettings
from tests.support import inside

# No two characters follow each other twice, so every part of four characters is a secret.
SECRET = "Qz7Xk9Wv"
URLS = [
    *(
        "postgresql://ann:{0}@{1}@127.0.0.1:1/tasks",
        "postgresql://ann:{0}/{1}@127.0.0.1:1",
        "cockroachdb://{0}%{1}@h:1",
    ),
    *(
        "postgresql://127.0.0.1:1?user=ann&password={0}&{1}",
        "mysql://ann:{0}{1}@h/tasks",
        "redis://:{0}/{1}@127.0.0.1:1",
    ),
    *("sqlite:///ann:{0}\n{1}@h/tasks", "https://ann:{0}--{1}@h/tasks"),
]
COMMANDS = [
    *(
        "",
        "--=",
        "serve --=",
        "key",
        "key new",
        "key revoke",
        "key list",
        "backup",
        "contract",
        "serve",
        "serve --reload",
        "serve --",
    ),
    *("migrate --database-url", "serve --database-url", "key list --database-url", "backup copy.db --database-url"),
    *("copy --to=postgresql://127.0.0.1:1/x --from", "copy --from=sqlite:///tasks.db --to", "migrate --databse-url"),
    *(f"serve --rate-limit=1/day --{name.replace('_', '-')}=" for name in ServerSettings.model_fields),
]


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not serve if the settings can be used."""
    monkeypatch.setattr("handlers.commands.service.serve", lambda _: None)
    monkeypatch.setattr("handlers.observability.metrics.serve", lambda _: None)


@pytest.mark.slow
@pytest.mark.usefixtures("ended")
@pytest.mark.parametrize("command", COMMANDS)
def test_no_command_prints_a_part_of_a_password(tmp_path: Path, command: str) -> None:
    inside.run(tmp_path, "migrate")
    secrets = [SECRET[start : start + 4] for start in range(len(SECRET) - 3)]
    flags = command.split()
    for url in URLS:
        value = url.format(SECRET[:4], SECRET[4:])
        arguments = [*flags[:-1], flags[-1] + value] if command.endswith("=") else [*flags, value]
        result = inside.run(tmp_path, *arguments)
        assert not [secret for secret in secrets if secret in result.stdout + result.stderr], arguments


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("sevre", "{0} has no such command; did you mean serve?"),
        ("tsaks", "{0} has no such command; see {0} --help."),
        ("key lst", "{0} key has no such command; did you mean list?"),
        ("--port 80 serve", "{0} has no such command; see {0} --help."),
        ("--verison", "{0} has no flag --verison; did you mean --version?"),
        ("serve --prot 80", "{0} serve has no flag --prot; did you mean --port?"),
        ("serve --PORT=80", "{0} serve has no flag --PORT; did you mean --port?"),
        ("serve --accesslog", "{0} serve has no flag --accesslog; did you mean --access-log?"),
        ("migrate --port 80", "{0} migrate has no flag --port; see {0} migrate --help."),
        ("serve -p 80", "{0} serve has no such argument; see {0} serve --help."),
        ("serve 80 --reload", "{0} serve has no such argument; see {0} serve --help."),
        ("serve --port=80 80", "{0} serve has no such argument; see {0} serve --help."),
        ("serve --reload maybe", "--reload takes no value; see {0} serve --help."),
        ("serve --reload=maybe", "argument --reload/--no-reload: takes no value; see {0} serve --help."),
        ("serve --port", "argument --port: expected one argument; see {0} serve --help."),
        ("key new", "{0} key new needs NAME; see {0} key new --help."),
        ("key list all", "{0} key list has no such argument; see {0} key list --help."),
        ("key revoke a/b", "A key's name has 1 to 64 letters, digits, dots, underscores and hyphens."),
        ("backup", "{0} backup needs FILE; see {0} backup --help."),
        ("backup sqlite:///copy.db", "Name a file, not a URL, as in {0} backup copy.db."),
        (
            "copy",
            "--from is missing: name the file, such as sqlite:///tasks.db.\n"
            "--to is missing: name the database, such as postgresql://host/tasks.",
        ),
        (
            "copy --from tasks.db --to postgresql://h/tasks",
            "--from must name a SQLite file, such as sqlite:///data.db, and --to a server, such as"
            " postgresql://user:password@host/database.",
        ),
        (
            "copy --from sqlite:///no.db --to postgresql://h",
            "There is no file no.db: name an existing database in --from.",
        ),
        (
            "copy --from \tsqlite:///no-\udcff.db\r --to postgresql://h",
            "There is no file no-\udcff.db: name an existing database in --from.",
        ),
        (
            "copy --from sqlite:///no/no.db --to postgresql://h",
            "The folder of no/no.db does not exist: create it, or change --from.",
        ),
    ],
)
def test_wrong_arguments_are_reported_in_one_sentence(tmp_path: Path, arguments: str, sentence: str) -> None:
    failed = inside.run(tmp_path, *arguments.split(" "))

    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == f"{sentence.format(COMMAND)}\n"
