"""Timestamps in the database, in responses and in the log are in UTC, whatever the local time zone is."""

import asyncio
import json
import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import chain
from pathlib import Path

import pytest

from models.answers import AnswerQueries
from models.database.address import open_database
from models.database.clock import now
from models.database.migrate import migrate
from tests.support import inside
from tests.support.calls import bearer, make_key, post
from tests.support.service import Start
from tests.support.stores import SqliteStore

# The POSIX notation needs no time zone database: 14 hours ahead of UTC, 12 hours behind UTC, 5:30 hours ahead, and UTC.
ZONES = ["AHEAD-14", "BEHIND+12", "HALF-5:30", "UTC0"]
TIME = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d[^\"', ]*")
UTC_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")


@pytest.fixture(params=ZONES)
def zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Set the time zone of this process and of the processes that it starts."""
    with monkeypatch.context() as patched:
        patched.setenv("TZ", request.param)
        time.tzset()
        yield request.param
    time.tzset()


def assert_is_recent(text: str, began: float) -> None:
    """Assert that a timestamp has the contract's format and lies between `began` and now."""
    assert UTC_TIME.fullmatch(text)
    # The service truncates timestamps to milliseconds.
    assert began - 0.001 <= datetime.fromisoformat(text).timestamp() <= time.time()


@pytest.mark.parametrize("ago", [timedelta(0), timedelta(milliseconds=36), timedelta(hours=1.5), timedelta(days=400)])
def test_time_is_utc_in_every_zone(zone: str, ago: timedelta) -> None:
    began = time.time()

    shifted = datetime.fromisoformat(now(ago)) + ago

    assert now(ago).endswith("Z")
    assert shifted.tzinfo == UTC
    assert began - 0.001 <= shifted.timestamp() <= time.time()


def test_kept_responses_expire_on_time_in_every_zone(zone: str, store: SqliteStore) -> None:
    migrate(store.url)
    database = open_database(store.url)
    answers = AnswerQueries(database)
    # The ages of the stored responses in seconds; the retention period is an hour and a half (5,400 seconds).
    ages = [0, 5390, 5410, 20 * 3600]

    async def work() -> int:
        await database.start()
        try:
            for age in ages:
                await database.write(answers.find_or_reserve, str(age).encode())
                created = datetime.fromtimestamp(time.time() - age, UTC).isoformat(timespec="milliseconds")
                written = created.replace("+00:00", "Z")
                if age:
                    store.execute(f"UPDATE kept_answer SET created_at = '{written}' WHERE key = CAST({age} AS BLOB)")
            removed: int = await database.write(answers.delete_some, timedelta(hours=1.5))
            return removed
        finally:
            await database.shut_down()

    assert asyncio.run(work()) == 2
    assert {key for (key,) in store.execute("SELECT key FROM kept_answer")} == {b"0", b"5390"}


def test_every_stored_returned_or_logged_time_is_utc(
    zone: str, start: Start, store: SqliteStore, tmp_path: Path
) -> None:
    began = time.time()
    for name in ("old", "new"):
        key = make_key(store, tmp_path, name)
    assert inside.run(tmp_path, "key", "revoke", "old", variables={"DATABASE_URL": store.url}).returncode == 0
    service = start("--access-log", variables={"TZ": zone})
    created = post(service.client, "key", None, **bearer(key))
    listed = service.client.get("/api/tasks", headers=bearer(key))
    service.process.terminate()
    log, _ = service.process.communicate(timeout=30)

    tables = ("task", "kept_answer", "api_key")
    stored = [TIME.findall(repr(store.execute(f"SELECT * FROM {table}"))) for table in tables]
    assert all(stored)
    returned = [created.json()["createdAt"], *(task["createdAt"] for task in listed.json())]
    logged = [json.loads(line)["time"] for line in log.splitlines()]
    assert (len(returned), len(logged)) == (2, 2)
    for text in chain(*stored, returned, logged):
        assert_is_recent(text, began)
