"""Several processes that answer on one port."""

import socket
from functools import partial
from typing import Any

from uvicorn import Config
from uvicorn.supervisors import Multiprocess

# So many connections wait to be accepted.
BACKLOG = 2048
# For so many seconds a worker may take to start.
START = 30


class SharedPort(socket.socket):
    """A port on which each process that this is passed to listens for itself.

    With one socket for all, the first to wake up took nearly all connections that came at the same time; of several
    sockets, the kernel picks one for each connection (SO_REUSEPORT, man 7 socket).
    """

    @classmethod
    def in_place_of(cls, listener: socket.socket) -> "SharedPort":
        """Take the place of a socket that is bound to the port."""
        port = cls(listener.family, socket.SOCK_STREAM)
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        address = listener.getsockname()
        listener.close()
        port.bind(address)
        return port

    def __reduce__(self) -> tuple[Any, ...]:
        listen = partial(socket.create_server, family=self.family, backlog=BACKLOG, reuse_port=True)
        return listen, (self.getsockname(),)


class Workers(Multiprocess):
    """Several processes that serve, announced once they do."""

    def __init__(self, config: Config, sockets: list[socket.socket], announcement: str) -> None:
        super().__init__(config, sockets)
        self.announcement = announcement

    def init_processes(self) -> None:
        super().init_processes()
        for process in self.processes:
            process.wait_until_ready(START, self.should_exit)
        print(self.announcement, flush=True)
