"""The pool of pipelines: reads that wait at the same time share one, and each write has one to itself.

A write may wait for the lock of another one, and the server combines the flushes of commits on several connections.

psycopg's pool connects, reconnects and replaces old connections. Its lock takes too much CPU to be used for every
request, so a connection is taken from it once, and returned when it has been idle for a while.
"""

import asyncio
import select
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, NamedTuple

import psycopg
from psycopg_pool import AsyncConnectionPool

from models.database.errors import UnavailableError
from models.database.pipeline import Batch, Outcome, Pipeline, PooledConnection, Query, resolve

# The greatest number of reads that share a pipeline.
BATCH_SIZE = 16
# Seconds after which an idle connection returns to psycopg's pool, and after which a busy one does.
IDLE_TIMEOUT = 1.0
HOLD_TIMEOUT = 60.0
CLOSED = "the connection pool is closed"


class Read(NamedTuple):
    """A read that waits for a pipeline. It shares the pipeline unless it is alone."""

    query: Query
    done: asyncio.Future[Outcome]
    since: float
    is_alone: bool = False


class Write(NamedTuple):
    """A write that waits for a pipeline."""

    done: asyncio.Future[Pipeline | Exception]
    since: float


class SharedReads(Batch):
    """Reads that share a pipeline. Each gets its result as soon as it arrives.

    The server runs them one after another, and sends small results at the end. So a slow read delays the others, but at
    most for a third of the timeout: then they also run alone, and their first results count.
    """

    def __init__(self, reads: list[Read], repeat: Callable[[Read], None]) -> None:
        super().__init__()
        self._reads = reads
        self._repeat = repeat
        self._is_repeated = False

    def receive(self, position: int, outcome: Outcome) -> None:
        if not self._is_repeated or not isinstance(outcome, Exception):
            resolve(self._reads[position].done, outcome)

    def end(self, error: Exception | None) -> None:
        if error:
            for read in self._reads:
                resolve(read.done, error)
        else:
            # One failed, and those behind it did not run.
            self._repeat_rest()

    def delay(self) -> None:
        if len(self._reads) > 1:
            self._repeat_rest()

    def _repeat_rest(self) -> None:
        if not self._is_repeated:
            for read in self._reads:
                if not read.done.done():
                    self._is_repeated = True
                    self._repeat(read)


class PipelinePool:
    """The pipelines of a database, and the reads and writes that wait for one.

    Args:
        connections: psycopg's pool.
        pool_timeout: The seconds that a request waits for a pipeline.
        timeout: The seconds that it then waits for results.
    """

    def __init__(self, connections: AsyncConnectionPool[PooledConnection], pool_timeout: float, timeout: float) -> None:
        self._connections = connections
        self._pool_timeout = pool_timeout
        self._timeout = timeout
        self._loop = asyncio.get_running_loop()
        self._reads: deque[Read] = deque()
        self._writes: deque[Write] = deque()
        # Each pipeline with the time when to return its connection, and the idle ones, the last used one at the end.
        self._pipelines: dict[Pipeline, float] = {}
        self._idle: dict[Pipeline, float] = {}
        self._opening = 0
        self._running: set[asyncio.Task[None]] = set()
        self._is_scheduled = False
        self._is_closed = False
        self._expiry_timer: asyncio.TimerHandle | None = None
        self._idle_timer: asyncio.TimerHandle | None = None

    async def close(self) -> None:
        """Close all connections. Requests that still wait fail."""
        self._is_closed = True
        for timer in (self._expiry_timer, self._idle_timer):
            if timer:
                timer.cancel()
        for pipeline in [*self._pipelines]:
            pipeline.close(UnavailableError(CLOSED))
        await self._connections.close()
        await asyncio.gather(*self._running)

    def read(self, query: Query) -> asyncio.Future[Outcome]:
        """Run a statement that only reads, together with others that wait."""
        read = Read(query, self._loop.create_future(), self._loop.time())
        self._reads.append(read)
        self._schedule()
        return read.done

    async def acquire(self) -> Pipeline:
        """Return a pipeline for a write, which must end with `release`."""
        write = Write(self._loop.create_future(), self._loop.time())
        self._writes.append(write)
        self._schedule()
        try:
            outcome = await write.done
        except asyncio.CancelledError:
            # It may have been cancelled after it got the pipeline.
            if not write.done.cancelled() and isinstance(pipeline := write.done.result(), Pipeline):
                pipeline.release()
            raise
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    def queue_depth(self) -> int:
        """Return how many requests wait for a pipeline."""
        waiting: list[Read | Write] = [*self._reads, *self._writes]
        return sum(not request.done.done() for request in waiting)

    def connection_states(self) -> dict[str, int]:
        """Return the number of connections by state."""
        stats = self._connections.get_stats()
        idle = stats["pool_available"] + len(self._idle)
        return {"used": stats["pool_size"] - idle, "idle": idle}

    def _schedule(self) -> None:
        # Serve the requests of one turn of the event loop together. Also, the event loop then notices connections that
        # the server has closed before one is used.
        if not self._is_scheduled:
            self._is_scheduled = True
            self._loop.call_soon(self._serve)

    def _serve(self) -> None:
        """Let requests that wait use idle pipelines, the oldest request first."""
        self._is_scheduled = False
        while self._reads or self._writes:
            if self._is_closed:
                resolve((self._reads or self._writes).popleft().done, UnavailableError(CLOSED))
            elif not self._idle:
                self._open()
                self._watch_expiry()
                break
            elif self._reads and not (self._writes and self._writes[0].since < self._reads[0].since):
                if reads := self._next_reads():
                    pipeline = self._use()
                    queries = [read.query for read in reads]
                    pipeline.send(SharedReads(reads, self._repeat), queries, pipeline.connection.settings)
                    pipeline.release()
            elif not (write := self._writes.popleft()).done.done():
                write.done.set_result(self._use())

    def _use(self) -> Pipeline:
        pipeline, _ = self._idle.popitem()
        pipeline.acquire()
        return pipeline

    def _next_reads(self) -> list[Read]:
        """Return the reads to send together, without those whose requests were cancelled."""
        reads: list[Read] = []
        while self._reads and len(reads) < BATCH_SIZE:
            if reads and (reads[0].is_alone or self._reads[0].is_alone):
                break
            read = self._reads.popleft()
            if not read.done.done():
                reads.append(read)
        return reads

    def _repeat(self, read: Read) -> None:
        """Run a read again, alone."""
        self._reads.append(read._replace(since=self._loop.time(), is_alone=True))
        self._schedule()

    def _open(self) -> None:
        """Open pipelines for the requests that wait, unless there are as many as there may be."""
        needed = len(self._writes) + bool(self._reads)
        while self._opening < needed and len(self._pipelines) + self._opening < self._connections.max_size:
            self._opening += 1
            self._run(self._open_pipeline())

    async def _open_pipeline(self) -> None:
        try:
            connection = await self._take_connection()
        # The requests time out, too.
        except psycopg.OperationalError:
            self._opening -= 1
            self._schedule()
        else:
            self._opening -= 1
            pipeline = Pipeline(connection, self._timeout, self._on_idle, self._on_close)
            self._pipelines[pipeline] = self._loop.time() + HOLD_TIMEOUT
            self._on_idle(pipeline)

    async def _take_connection(self) -> PooledConnection:
        """Return a connection of psycopg's pool that the server has not closed."""
        while True:
            connection = await self._connections.getconn(self._pool_timeout)
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            # An idle connection becomes readable when the server closes it.
            if not poll.poll(0):
                return connection
            await connection.close()
            await self._connections.putconn(connection)

    def _on_idle(self, pipeline: Pipeline) -> None:
        now = self._loop.time()
        if self._is_closed or now > self._pipelines[pipeline]:
            self._return(pipeline)
        else:
            self._idle[pipeline] = now
            self._idle_timer = self._idle_timer or self._loop.call_later(IDLE_TIMEOUT, self._return_idle)
        if not self._is_scheduled:
            self._serve()

    def _on_close(self, pipeline: Pipeline) -> None:
        del self._pipelines[pipeline]
        self._idle.pop(pipeline, None)
        # psycopg's pool replaces a closed connection.
        self._run(self._connections.putconn(pipeline.connection))
        self._schedule()

    def _return_idle(self) -> None:
        self._idle_timer = None
        before = self._loop.time() - IDLE_TIMEOUT
        for pipeline, since in [*self._idle.items()]:
            if since <= before:
                del self._idle[pipeline]
                self._return(pipeline)
        if self._idle:
            self._idle_timer = self._loop.call_later(IDLE_TIMEOUT, self._return_idle)

    def _return(self, pipeline: Pipeline) -> None:
        del self._pipelines[pipeline]
        pipeline.detach()
        self._run(self._connections.putconn(pipeline.connection))

    def _watch_expiry(self) -> None:
        if not self._expiry_timer and (since := [queue[0].since for queue in (self._reads, self._writes) if queue]):
            self._expiry_timer = self._loop.call_at(min(since) + self._pool_timeout, self._expire)

    def _expire(self) -> None:
        """Fail the requests that have waited too long for a pipeline."""
        self._expiry_timer = None
        before = self._loop.time() - self._pool_timeout
        error = UnavailableError(f"couldn't get a connection after {self._pool_timeout:.2f} sec")
        for queue in (self._reads, self._writes):
            while queue and queue[0].since <= before:
                resolve(queue.popleft().done, error)
        self._watch_expiry()

    def _run(self, coroutine: Coroutine[Any, Any, None]) -> None:
        running = self._loop.create_task(coroutine)
        self._running.add(running)
        running.add_done_callback(self._running.discard)
