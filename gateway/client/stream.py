"""A stream of events that outlives its connections.

There is no task behind it: everything happens while somebody waits for the next event.
"""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType
from typing import Self

import aiohttp

from gateway.client.conduct import Conduct, State
from gateway.client.connection import Connection
from gateway.client.cursor import Cursor, Verdict
from gateway.client.errors import Dropped, StreamError
from gateway.client.events import Answer, is_heartbeat
from gateway.client.patience import Patience
from gateway.client.retry import server_floor_s
from gateway.client.silence import Silence
from gateway.client.source import Question, Source, read_refusal
from gateway.client.stopping import request_stop
from gateway.sse.parser import Event

_OPEN_WAIT_S = 5.0


class EventStream:
    """Made by `open_stream`. Iterate it inside `async with`, in one task; `stop` and `close` may
    come from any.

    Cancelling whoever waits for an event closes the connection for good, as `close` does.
    """

    def __init__(
        self,
        question: Question,
        conduct: Conduct,
        *,
        session: aiohttp.ClientSession | None,
        last_event_id: str,
    ) -> None:
        self._conduct = conduct
        self._timing = conduct.timing
        self._source = Source(question, session)
        self._cursor = Cursor(last_event_id)
        self._silence = Silence(conduct.silence_s)
        self._patience = Patience()
        self._connection: Connection | None = None
        self._pending: deque[Event] = deque()
        self._drop: StreamError | None = None  # what ended the last connection
        self._failure: StreamError | None = None
        self._attempts = 0  # since the last event
        self._retry_ms: int | None = None
        self._was_unauthorized = False
        self._opened = asyncio.Event()
        self._stop_by: float | None = None
        self._started_at = 0.0
        #: Where the consumer stands: the id of the event that it was given last.
        self.last_event_id = last_event_id
        self.state = State.IDLE
        self.trace_id: str | None = None
        #: Reconnections begun.
        self.reconnects = 0
        #: From the first attempt; heartbeats don't count.
        self.time_to_first_event_s: float | None = None
        #: The terminal event came, good or bad, or the server said by 204 that nothing more will.
        self.has_ended = False

    @property
    def stream_id(self) -> str | None:
        """The server's name for this stream, once it has given one."""
        return self._cursor.stream_id

    async def __aenter__(self) -> Self:
        """Connects.

        Raises:
            StreamError: it was refused, or the attempts are used up.
        """
        if self.state is not State.IDLE:
            raise RuntimeError("a stream can be opened once")
        self.state = State.CONNECTING
        self._started_at = self._timing.clock()
        try:
            while self._connection is None and not self._is_closed:
                await self._advance()
            if self._failure is not None:
                raise self._failure
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Event:
        """
        Raises:
            StreamError: the stream can't be read on.
        """
        if self.state is State.IDLE:
            raise RuntimeError("open the stream with `async with` first")
        while not self._pending:
            if self._failure is not None:
                raise self._failure
            if self._is_closed:
                raise StopAsyncIteration
            await self._advance()
        event = self._pending.popleft()
        if event.has_id:
            self.last_event_id = event.id
        return event

    async def text(self) -> str:
        """Reads a typed stream to its end: the whole answer.

        Raises:
            StreamError: it ended with an `error` event or couldn't be read on; `partial` is what
                had come.
        """
        answer = Answer()
        try:
            async for event in self:
                answer.add(event)
        except StreamError as error:
            error.partial = answer.text
            raise
        answer.raise_error()
        return answer.text

    async def stop(self) -> dict[str, object]:
        """Ends the generation on the server, which keeps the partial answer and returns it.

        What is still on its way can be iterated up to the terminal event, for at most 2 s; there
        is no reconnection any more. A server that offers no way to stop is left, and {} returned.

        Raises:
            StreamError: the server refused or can't be reached; the stream goes on.
        """
        if self.state is State.CONNECTING:
            await self._wait_until_opened()  # it has no name before that
        account = await request_stop(
            self._source, self.stream_id, self._conduct.retry, self._timing
        )
        if account is None:
            await self.close()
            return {}
        wait_s = self._timing.stop_wait_s
        self._stop_by = self._timing.clock() + wait_s
        self._patience.hurry(wait_s if self._connection else 0)
        return account

    async def close(self) -> None:
        """Leaves the stream, which goes on without us; iteration ends."""
        self._pending.clear()
        self._finish()
        self._patience.hurry(0)
        await self._source.close()

    @property
    def _is_closed(self) -> bool:
        return self.state is State.CLOSED

    async def _advance(self) -> None:
        """One step: wait, connect or read."""
        try:
            if self._drop is not None:
                await self._back_off(self._drop)
            elif self._connection is None:
                await self._connect()
            else:
                await self._read(self._connection)
        except Dropped as drop:
            self._lose_connection(drop.error)
        except StreamError as error:
            self._failure = error  # raised after the events that came before it
            self._finish()
        except asyncio.CancelledError:
            self._failure = StreamError("cancelled", "whoever read this stream was cancelled")
            self._finish()
            raise

    async def _back_off(self, drop: StreamError) -> None:
        retry = self._conduct.retry
        self._attempts += 1
        if not retry.allows(self._attempts):
            raise drop
        jitter_s = self._timing.uniform(0, retry.ceiling_s(self._attempts))
        wait_s = max(jitter_s, server_floor_s(self._retry_ms, drop.retry_after_s))
        await self._patience.within(None, self._timing.sleep(wait_s))
        self._drop = None
        self.reconnects += 1

    async def _connect(self) -> None:
        if self._stop_by is not None:
            raise Dropped(StreamError("stopped"))
        cursor = self._cursor.last_event_id
        is_begun = self.time_to_first_event_s is not None
        if is_begun and not cursor and not self._source.is_repeatable:
            raise StreamError("not_resumable", "the answer broke off and has no ids to go on from")
        limit_s = self._silence.limit_s
        response = await self._patience.within(limit_s, self._source.ask(cursor))
        try:
            await self._greet(response)
        finally:
            if self._connection is None:
                response.close()

    async def _greet(self, response: aiohttp.ClientResponse) -> None:
        if response.status == 204:
            self.has_ended = True
            self._finish()
        elif response.status == 200:
            self._begin(response)
        else:
            await self._refuse(response)

    def _begin(self, response: aiohttp.ClientResponse) -> None:
        if self._is_closed:
            return  # in the very moment that the response came
        self._connection = Connection(
            response,
            max_event_bytes=self._conduct.max_event_bytes,
            last_event_id=self._cursor.last_event_id,
        )
        self._source.learn(response)
        self._cursor.attach(response.headers.get("X-Stream-Id"))
        self._silence.connected(response.headers.get("X-Silence-Threshold"))
        self.trace_id = response.headers.get("X-Trace-ID", self.trace_id)
        self._was_unauthorized = False
        self.state = State.OPEN
        self._opened.set()

    async def _refuse(self, response: aiohttp.ClientResponse) -> None:
        """
        Raises:
            Dropped: another attempt may do better.
            StreamError: none will.
        """
        error = await self._patience.within(self._silence.limit_s, read_refusal(response))
        if self._conduct.retry.accepts(response.status, error.retry_after_s):
            raise Dropped(error)
        if response.status != 401 or self._was_unauthorized or not self._source.renews_headers:
            raise error
        self._was_unauthorized = True  # the next step asks again, at once, with new headers

    async def _read(self, connection: Connection) -> None:
        batch = await self._patience.within(self._patience_s(), connection.read())
        if self._is_closed:
            return
        self._retry_ms = connection.retry_ms or self._retry_ms
        self._silence.heard(self._timing.clock(), is_beat=batch.is_beat)
        self._take(batch.events)
        if self.stream_id is None:
            self._cursor.last_event_id = connection.last_event_id

    def _take(self, events: list[Event]) -> None:
        for event in events:
            verdict = self._cursor.judge(event)
            if verdict is Verdict.GAP:
                raise Dropped(StreamError("gap", "events are missing"))
            if verdict is Verdict.DUPLICATE:
                continue
            self._pending.append(event)
            if not is_heartbeat(event):
                self._progress()
            if self._conduct.is_terminal(event):
                self.has_ended = True
                self._finish()
                return

    def _progress(self) -> None:
        self._attempts = 0
        if self.time_to_first_event_s is None:
            self.time_to_first_event_s = self._timing.clock() - self._started_at

    def _patience_s(self) -> float | None:
        """Seconds that the next bytes may take."""
        limit_s = self._silence.limit_s
        if self._stop_by is None:
            return limit_s
        left_s = max(0.0, self._stop_by - self._timing.clock())
        return left_s if limit_s is None else min(left_s, limit_s)

    def _lose_connection(self, error: StreamError) -> None:
        if self._is_closed or self._stop_by is not None:
            self._finish()
            return
        self._disconnect()
        self._drop = error
        if self._opened.is_set():
            self.state = State.RECONNECTING

    def _finish(self) -> None:
        self.state = State.CLOSED
        self._disconnect()
        self._opened.set()

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close(is_over=self.has_ended)
            self._connection = None

    async def _wait_until_opened(self) -> None:
        try:
            async with asyncio.timeout(_OPEN_WAIT_S):
                await self._opened.wait()
        except TimeoutError:
            return
