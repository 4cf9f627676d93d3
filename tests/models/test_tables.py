"""Every table is found by walking the models."""

import sqlite3
from contextlib import closing
from pathlib import Path
from types import ModuleType

import pytest

from models.answers import KeptAnswer
from models.database.errors import ConfigurationError
from models.database.migrate import migrate
from models.keys import ApiKey
from models.tables import all_tables, check_columns
from models.task import Task


def test_every_table_of_the_service_is_found() -> None:
    assert {Task, KeptAnswer, ApiKey} <= set(all_tables())


def test_tables_come_after_those_they_refer_to(tmp_path: Path) -> None:
    """The package has a module with a base class, a package, and modules that must not be imported."""
    files = {
        "__init__": "",
        "base": "import peewee\nclass Base(peewee.Model):\n    name = peewee.TextField()\n",
        "animals/__init__": "",
        "animals/cat": (
            "from peewee import ForeignKeyField\nfrom test_shop.base import Base\nfrom test_shop.owner import Owner\n"
            "class Cat(Base):\n    owner = ForeignKeyField(Owner)\n"
        ),
        "owner": "from test_shop.base import Base\nclass Owner(Base):\n    pass\n",
        "migrations/__init__": "",
        "migrations/first": "import nonsense\n",
    }
    for name, text in files.items():
        path = tmp_path / "test_shop" / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(tmp_path)
        package = ModuleType("test_shop")
        package.__path__ = [str(tmp_path / "test_shop")]

        assert [table.__name__ for table in all_tables(package)] == ["Owner", "Cat"]


def test_missing_migration_is_reported(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/data.db"
    migrate(url)
    check_columns(url)
    with closing(sqlite3.connect(tmp_path / "data.db")) as connection:
        connection.execute("ALTER TABLE api_key DROP COLUMN revoked_at")

    with pytest.raises(ConfigurationError, match=r"^The table api_key has no column revoked_at: add a migration"):
        check_columns(url)
