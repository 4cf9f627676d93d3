"""PgBouncer, a connection pooler between services and their PostgreSQL server."""

import os
import socket
import subprocess
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict

from tests.support.project import ROOT, tool

# Nobody reads the log after the start.
QUIET = dict.fromkeys(["log_connections", "log_disconnections", "log_pooler_errors", "log_stats"], 0)
# The settings that the documentation names.
MAX_PREPARED_STATEMENTS = 200
DEFAULTS = {"pool_mode": "transaction", "max_prepared_statements": MAX_PREPARED_STATEMENTS}


class PgBouncer:
    """A running PgBouncer in transaction mode.

    Args:
        folder: A folder for its configuration.
        database: The URL of a database, for which `url` is the URL through PgBouncer.
        settings: The settings that differ from PgBouncer's defaults.
    """

    def __init__(self, folder: Path, database: str, **settings: object) -> None:
        self._file = folder / "pgbouncer.ini"
        with closing(socket.create_server(("127.0.0.1", 0))) as probe:
            host, port = probe.getsockname()
        self.url = urlsplit(database)._replace(netloc=f"{host}:{port}", query="").geturl()
        target = {name: value for name, value in conninfo_to_dict(database).items() if name != "dbname" and value}
        # This is the folder of the server's Unix socket, or the name of another machine.
        self._server = Path(str(target["host"]))
        options = {"listen_addr": host, "listen_port": port, "unix_socket_dir": "", "auth_type": "any"} | QUIET
        lines = [f"{name} = {value}" for name, value in (DEFAULTS | options | settings).items()]
        connection = " ".join(f"{name}={value}" for name, value in target.items())
        self._file.write_text("\n".join(["[databases]", f"* = {connection}", "[pgbouncer]", *lines, ""]), "utf-8")
        self.start()

    def start(self) -> None:
        """Start PgBouncer, and wait until it accepts connections."""
        program = tool(ROOT / "build/pgbouncer/pgbouncer")
        # PgBouncer refuses to run as root.
        user = ["-u", self._server.owner() if self._server.is_dir() else "nobody"] if os.getuid() == 0 else []
        self._process = subprocess.Popen([program, *user, self._file], stderr=subprocess.PIPE, encoding="utf-8")
        assert self._process.stderr
        assert any("process up" in line for line in self._process.stderr)

    def kill(self) -> None:
        """Kill PgBouncer with SIGKILL."""
        self._process.kill()
        self._process.communicate()
