"""Prometheus metrics, which the service serves on a separate address."""

import os
import signal
import socket
import stat
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.request import urlopen

import httpx
import pytest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.parser import text_string_to_metric_families
from pydantic import ValidationError

from handlers.settings import ServerSettings
from tests.support.service import Service, Start, run
from tests.support.stores import Store
from tests.support.wire import HOST, JSON, connect, exchange, read_response, request

Samples = dict[str, float]
TASK = {"title": "a"}


@pytest.fixture
def port() -> int:
    """Return a free TCP port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        number: int = listener.getsockname()[1]
        return number


def samples(port: int, host: str = "127.0.0.1") -> Samples:
    """Fetch the metrics, and return the value of each combination of a metric's name and labels."""
    with urlopen(f"http://{host}:{port}/metrics", timeout=30) as response:
        text = response.read().decode()
    return {
        sample.name.removeprefix("tasks_api_") + "".join(f" {value}" for value in sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def eventually(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def workers(service: Service) -> set[int]:
    """Return the process IDs of the workers of a service."""
    process = service.process.pid
    children = Path(f"/proc/{process}/task/{process}/children").read_text("utf-8").split()
    return {int(child) for child in children if b"spawn_main" in _command(child)}


def _command(process: str) -> bytes:
    """Return the command line of a process, or an empty string if the process has just ended."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes()
    except OSError:
        return b""


def send_requests(service: Service, count: int) -> None:
    """Request the list of tasks `count` times, each time on a new connection."""

    def list_tasks(_: int) -> None:
        assert exchange(service.url, request("GET", "/api/tasks"))[0].status == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(list_tasks, range(count)))


def is_serving_again(service: Service) -> bool:
    """Return whether a service responds again after its workers were replaced."""
    with suppress(httpx.TransportError):
        return service.client.get("/api/tasks/9999").status_code == 404
    return False


@pytest.fixture
def temp_root(tmp_path: Path) -> Iterator[Path]:
    """Yield a folder for the temporary folders of a service, and check at the end that the service removed them all."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    yield folder
    assert list(folder.iterdir()) == []


def test_counts_survive_killed_workers(start: Start, store: Store, tmp_path: Path, temp_root: Path, port: int) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    kept = MmapedDict(str(foreign / "counter_1.db"))
    kept.write_value(mmap_key("foreign", "foreign_total", [], [], "A metric of another program."), 5.0, 0.0)
    kept.close()
    service = start(
        *("--workers", "2", "--metrics", f"127.0.0.1:{port}"),
        variables={"PROMETHEUS_MULTIPROC_DIR": str(foreign), "TMPDIR": str(temp_root)},
    )
    (folder,) = temp_root.iterdir()
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (folder / "counter_1.db").touch()  # as if a worker had just created the file

    send_requests(service, 100)
    eventually(lambda: samples(port)["requests_total listTasks 200"] == 100)
    assert samples(port)["request_duration_seconds_count listTasks"] == 100
    assert len(list(folder.glob("counter_*.db"))) == 3, "each worker must have responded"

    before = workers(service)
    with ThreadPoolExecutor(20) as pool, store.block_writes():
        for _ in range(20):
            pool.submit(exchange, service.url, request("POST", "/api/tasks", TASK))
        eventually(lambda: samples(port)["write_queue_depth"] > 0)
        for process in before:
            os.kill(process, signal.SIGKILL)
        eventually(lambda: len(workers(service) - before) == 2)
        eventually(lambda: samples(port)["write_queue_depth"] == 0)

    eventually(lambda: is_serving_again(service))
    send_requests(service, 50)
    eventually(lambda: samples(port)["requests_total listTasks 200"] == 150)
    assert not [name for name in samples(port) if "foreign" in name]
    assert [path.name for path in foreign.iterdir()] == ["counter_1.db"]
    assert service.stop() == 0


def test_write_queue_and_batches_with_sqlite(start: Start, store: Store, port: int) -> None:
    service = start("--metrics", f"127.0.0.1:{port}")
    eventually(lambda: samples(port)["write_batch_size_sum"] == 1)  # the purge of expired responses is also a batch
    with ThreadPoolExecutor(6) as pool, store.block_writes():
        first = pool.submit(service.client.post, "/api/tasks", json=TASK)
        # The first POST stays in the queue until the writer thread takes it.
        eventually(lambda: samples(port)["write_queue_depth"] == 0 and first.running())
        time.sleep(1)
        others = [pool.submit(service.client.post, "/api/tasks", json=TASK) for _ in range(5)]
        eventually(lambda: samples(port)["write_queue_depth"] == 5)
    assert {task.result().status_code for task in [first, *others]} == {201}

    eventually(lambda: samples(port)["write_queue_depth"] == 0)
    metrics = samples(port)
    assert (metrics["write_batch_size_count"], metrics["write_batch_size_sum"]) == (3, 7)
    assert [metrics[f"write_batch_size_bucket {size}"] for size in ("1.0", "4.0", "8.0")] == [2, 2, 3]
    assert not [name for name in metrics if "database_connections" in name]


def test_requests_are_counted_by_operation_and_status(start: Start, port: int) -> None:
    service = start("--metrics", f"127.0.0.1:{port}")
    for method, path in (("GET", "/api/tasks/1"), ("HEAD", "/api/tasks/1"), ("GET", "/docs"), ("GET", "/metrics")):
        service.client.request(method, path)
    assert service.client.post("/api/tasks", json=TASK).status_code == 201
    assert service.client.get("/metrics").status_code == 404
    exchange(service.url, b"nonsense\r\n\r\n")
    exchange(service.url, b"POST /api/tasks HTTP/1.1\r\n" + HOST + JSON + b"Content-Length: 5\r\n\r\n{")
    eventually(lambda: "requests_total createTask none" in samples(port))

    metrics = samples(port)
    assert {name: value for name, value in metrics.items() if name.startswith("requests_total")} == {
        "requests_total getTask 404": 2,
        "requests_total createTask 201": 1,
        "requests_total createTask none": 1,
        "requests_total none 200": 1,
        "requests_total none 404": 2,
        "requests_total none 400": 1,
    }
    assert metrics["request_duration_seconds_count createTask"] == 2
    assert 0 < metrics["request_duration_seconds_sum createTask"] < 10
    assert metrics["request_duration_seconds_bucket +Inf createTask"] == 2
    assert metrics["request_duration_seconds_bucket 0.0005 getTask"] < 2


def test_durations_are_in_seconds(start: Start, store: Store, port: int) -> None:
    """The measured duration is at least the time for which a lock blocks the request, and not longer than it took."""
    service = start("--metrics", f"127.0.0.1:{port}")
    with connect(service.url) as connection:
        began = time.monotonic()
        with store.block_writes():
            connection.sendall(request("POST", "/api/tasks", TASK))
            # The service reads this request after the POST, so once it responds, it has read the POST too.
            assert exchange(service.url, request("GET", "/api/tasks"))[0].status == 200
            time.sleep(0.3)
        assert read_response(connection).status in (201, 503)
    eventually(lambda: samples(port).get("request_duration_seconds_count createTask") == 1)
    # The service may measure until after the client has read the response.
    waited = time.monotonic() - began

    metrics = samples(port)
    assert 0.3 <= metrics["request_duration_seconds_sum createTask"] <= waited
    bounds = {
        float(name.split()[1]): count
        for name, count in metrics.items()
        if name.startswith("request_duration_seconds_bucket") and name.endswith(" createTask")
    }
    assert len([bound for bound in bounds if 0.3 < bound <= 10]) >= 3
    assert {count for bound, count in bounds.items() if bound < 0.3} == {0}
    assert {count for bound, count in bounds.items() if bound > waited} == {1}


@pytest.mark.parametrize("backend", ["postgresql"])
def test_write_queue_and_connections_with_postgresql(start: Start, store: Store, port: int) -> None:
    service = start("--metrics", f"127.0.0.1:{port}", "--database-connections", "2")

    def load() -> tuple[float, ...]:
        metrics = samples(port)
        names = ("write_queue_depth", "database_connections used", "database_connections idle")
        return tuple(metrics.get(name, 0) for name in names)

    eventually(lambda: load() in ((0, 0, 1), (0, 0, 2)))
    with ThreadPoolExecutor(5) as pool:
        with store.block_writes():
            pending = [pool.submit(service.client.post, "/api/tasks", json=TASK) for _ in range(5)]
            # The refresh of the API keys may wait in the queue too.
            eventually(lambda: load() in ((3, 2, 0), (4, 2, 0)))
        assert {task.result().status_code for task in pending} <= {201, 503}
    eventually(lambda: load() == (0, 0, 2))
    assert samples(port)["write_batch_size_count"] == 0


def test_counts_survive_a_reload(start: Start, tmp_path: Path, temp_root: Path, port: int) -> None:
    service = start("--reload", "--metrics", f"[::1]:{port}", variables={"TMPDIR": str(temp_root)})
    assert service.client.get("/api/tasks").status_code == 200
    before = workers(service)
    (tmp_path / "changed.py").touch()
    eventually(lambda: bool(workers(service) - before) and not workers(service) & before)

    eventually(lambda: is_serving_again(service))
    eventually(lambda: samples(port, "[::1]").get("requests_total getTask 404", 0) >= 1)
    assert samples(port, "[::1]")["requests_total listTasks 200"] == 1
    assert service.stop() == 0


@pytest.mark.slow
def test_unusable_metrics_address_is_reported_in_one_sentence(tmp_path: Path, temp_root: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        taken = listener.getsockname()[1]
        for address, reason in (
            (f"127.0.0.1:{taken}", "Address already in use"),
            ("nowhere.invalid:9464", ""),
            ("a..b:1", ""),
        ):
            failed = run(tmp_path, "serve", "--port", "0", "--metrics", address, variables={"TMPDIR": str(temp_root)})
            assert failed.returncode == 1
            assert failed.stdout == ""
            assert failed.stderr.startswith(f"Cannot serve metrics on {address}: {reason}")
            assert failed.stderr.endswith("; choose another address with --metrics.\n")
            assert failed.stderr.count("\n") == 1


@pytest.mark.parametrize("address", ["", "127.0.0.1:9464", "[::1]:9464", "0.0.0.0:65535", "metrics.internal:1"])
def test_valid_metrics_address_is_accepted(address: str) -> None:
    assert ServerSettings(metrics=address).metrics == address


@pytest.mark.parametrize(
    "address",
    [
        *("9464", ":9464", "127.0.0.1", "127.0.0.1:", "127.0.0.1:0", "127.0.0.1:65536", "::1:9464", "[::1]", "[a]:1:1"),
        *("http://127.0.0.1:9464", "127.0.0.1:9464/metrics", "127.0.0.1:٩٤٦٤", "127.0.0.1:9464\n9465", "a b:9464"),
    ],
)
def test_invalid_metrics_address_is_refused(address: str) -> None:
    with pytest.raises(ValidationError, match=r"write it as 127\.0\.0\.1:9464 or \[::1\]:9464"):
        ServerSettings(metrics=address)
