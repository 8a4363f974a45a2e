"""The producer: it belongs to the application and never to a request.

It asks the backend, cuts the bytes into blocks and appends what the wire makes of them, in the very
step in which the bytes arrive: it has a task only until the answer begins. It stops reading when
the log is full, so that TCP stops the backend, and closes the backend's connection on every way
out.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence

from gateway.errors import GatewayError, UpstreamError
from gateway.sse.dialects.base import Decoder, Dialect
from gateway.stream.answer import Answer, Ask, Opening
from gateway.stream.limits import Bounds
from gateway.stream.live import LiveStream
from gateway.stream.model import Ending, error_ending
from gateway.tasks import TaskOwner, log_failed

#: A read of so much holds many events.
_MANY_BYTES = 4096
#: What came, in parts that follow each other: blocks, or one piece of whatever kind; and joined.
Parts = Iterable[tuple[Sequence[bytes], bytes]]


class Producer:
    """Runs one stream; the follower of its answer."""

    __slots__ = (
        "_answer",
        "_ask",
        "_decoder",
        "_dialect",
        "_event_max_bytes",
        "_is_relaying",
        "_pauses",
        "_stream",
        "_task",
        "_tasks",
    )

    def __init__(
        self, stream: LiveStream, ask: Ask, dialect: Dialect, bounds: Bounds, tasks: TaskOwner
    ) -> None:
        self._stream = stream
        self._ask = ask
        self._dialect = dialect
        self._pauses = bounds.pauses
        self._event_max_bytes = bounds.event_max_bytes
        self._answer: Answer | None = None
        self._decoder = dialect.decoder(bounds.event_max_bytes)
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self._is_relaying = False

    def start(self) -> None:
        """Asks, in a task of the owner's; the stream's end tells how it went."""
        self._task = self._tasks.spawn(self._run(), name=f"producer {self._stream.id}")

    def stop(self, reason: str) -> None:
        """Closes the backend's connection, for a stream that has ended with this reason."""
        if self._task is not None:
            self._task.cancel(reason)  # for who judges the backend
        else:
            self._close()

    async def _run(self) -> None:
        stream = self._stream
        try:
            ask, self._ask = self._ask, _asked_already
            self._answer = answer = await ask()
            self._task = None
            del ask  # and with it the question
            if self._is_stream(answer):
                stream.open(Opening(headers=answer.headers))
                self._is_relaying = True
                answer.follow(self)
            elif self._decline(answer):
                self._answer = None
            else:
                self._close()
        except asyncio.CancelledError:
            stream.end(error_ending("server_shutdown"))
            raise
        except Exception as error:
            self._task = None
            self._break_off(error)

    def feed(self, chunk: bytes) -> None:
        """Appends what `chunk` completes. After the end of the stream it does nothing."""
        stream = self._stream
        if not self._is_relaying or stream.ending is not None:
            return
        wire = stream.wire
        try:
            if (
                self._decoder.is_between_blocks
                and len(chunk) <= self._event_max_bytes
                and (text := wire.usual_text(chunk)) is not None
            ):
                stream.last_event = time.monotonic()
                if stream.log.append(chunk if wire.is_verbatim else wire.spell(text)):
                    self._keep_within_bounds()
                return
            self._add(
                self._read(chunk) if len(chunk) < _MANY_BYTES else self._read_all(self._cut(chunk))
            )
        except Exception as error:
            self._break_off(error)

    def feed_many(self, chunks: list[bytes], joined: bytes) -> None:
        """The same for several that came together. Mostly each is an event, but for the first and
        the last, which may be parts of one; cutting them out of the whole again would be most of
        what is done with them."""
        if not self._is_relaying or self._stream.ending is not None:
            return
        if len(chunks) == 1:
            self.feed(joined)
            return
        is_begun, is_torn = not self._decoder.is_between_blocks, not joined.endswith(b"\n")
        first = len(chunks[0]) if is_begun else 0
        last = len(joined) - (len(chunks[-1]) if is_torn else 0)
        whole = chunks[is_begun : len(chunks) - is_torn]
        parts = (_piece(joined[:first]), (whole, joined[first:last]), _piece(joined[last:]))
        try:
            self._add(self._read_all(parts))
        except Exception as error:
            self._break_off(error)

    def _add(self, events: Sequence[bytes]) -> None:
        """Appends them; they may be the last."""
        stream = self._stream
        if stream.wire.ending is not None:
            self._finish(stream.wire.ending, events)
        elif events and stream.log.extend(events):
            self._keep_within_bounds()

    def _read(self, chunk: bytes) -> Sequence[bytes]:
        """The events that `chunk` completes, read the plain way."""
        stream = self._stream
        if not (blocks := self._decoder.feed(chunk)):
            return ()
        stream.last_event = now = time.monotonic()
        if stream.first_event is None:
            stream.first_event = now
            stream.look_again()
        return stream.wire.feed(blocks)

    def _read_all(self, parts: Parts) -> list[bytes]:
        """The events that these complete. Those whose blocks are the usual ones take a third of the
        time."""
        events: list[bytes] = []
        try:
            self._read_parts(parts, events)
        except UpstreamError:
            self._stream.log.extend(events)  # what came before the fault
            raise
        return events

    def _read_parts(self, parts: Parts, events: list[bytes]) -> None:
        stream = self._stream
        wire = stream.wire
        for blocks, part in parts:
            if not part or wire.ending is not None:
                continue
            usual = None
            if self._decoder.is_between_blocks and self._is_bounded(blocks, part):
                usual = wire.usual(part) if len(blocks) == 1 else wire.usual_blocks(blocks, part)
            if usual is not None:
                stream.last_event = time.monotonic()
                events += usual
            elif len(blocks) == 1:
                events += self._read(part)
            else:
                self._read_parts(self._cut(part), events)

    def _cut(self, chunk: bytes) -> Parts:
        """A chunk that holds many events, without what is unfinished at its ends."""
        first = 0 if self._decoder.is_between_blocks else chunk.find(b"\n\n") + 2
        last = chunk.rfind(b"\n\n") + 2
        return _piece(chunk[:first]), _piece(chunk[first:last]), _piece(chunk[last:])

    def _is_bounded(self, blocks: Sequence[bytes], joined: bytes) -> bool:
        most = self._event_max_bytes
        return len(joined) <= most or max(map(len, blocks)) <= most

    def feed_end(self, error: UpstreamError | None) -> None:
        if not self._is_relaying:
            return
        if error is not None:
            self._break_off(error)
        else:
            self._finish(_broken_off(self._decoder))

    def make_room(self) -> None:
        """A reader has advanced or gone: reading may go on."""
        stream = self._stream
        if stream.is_paused and self._answer is not None and self._has_room():
            stream.is_paused = False
            stream.mark("resumed")
            stream.last_event = time.monotonic()
            self._answer.resume()

    def _finish(self, ending: Ending, last: Sequence[bytes] = ()) -> None:
        """The answer is over by its content: its connection goes back to the pool."""
        self._stream.end(ending, last)
        answer = self._leave()
        if answer is not None and not answer.release():
            self._tasks.spawn(answer.finish(), name=f"rest of {self._stream.id}")

    def _break_off(self, error: Exception) -> None:
        self._close()
        if isinstance(error, GatewayError):
            self._fail(error)
            return
        log_failed(f"producer {self._stream.id}", error)
        self._stream.open(Opening(error=GatewayError("Something went wrong in the gateway.")))
        self._stream.end(error_ending("interrupted"))

    def _close(self) -> None:
        if (answer := self._leave()) is not None:
            answer.close()

    def _leave(self) -> Answer | None:
        answer, self._answer = self._answer, None
        self._is_relaying = self._stream.is_paused = False
        return answer

    def _keep_within_bounds(self) -> None:
        stream = self._stream
        if not self._pauses and not stream.awaits_reader:
            # Who keeps up has taken what is new; so the oldest may go.
            stream.log.trim(stream.log.last)
            stream.drop_lapsed()
        elif self._answer is not None and not self._has_room():
            stream.is_paused = True
            stream.look_again()
            stream.mark("paused")
            self._answer.pause()

    def _has_room(self) -> bool:
        log = self._stream.log
        log.trim(self._stream.lead_cursor)
        return not log.is_full

    def _is_stream(self, answer: Answer) -> bool:
        media_type, _, parameters = answer.headers.get("Content-Type", "").partition(";")
        if answer.status != 200 or media_type.strip().lower() not in self._dialect.stream_types:
            return False
        _refuse_what_cannot_be_relayed(answer.headers, parameters)
        return True

    def _decline(self, answer: Answer) -> bool:
        """Hands an answer that isn't a stream to the request, if that still waits for one."""
        stream = self._stream
        is_taken = stream.is_attached and not stream.is_committed
        if is_taken:
            stream.open(Opening(declined=answer))
        message = f"The backend answered with status {answer.status} instead of a stream."
        may_help = answer.status in (408, 429) or answer.status >= 500
        stream.end(error_ending("upstream_error").because(message, retryable=may_help))
        return is_taken

    def _fail(self, error: GatewayError) -> None:
        is_upstream = isinstance(error, UpstreamError)
        ending = error_ending(error.code if is_upstream else "upstream_error")
        retryable = error.retryable if isinstance(error, UpstreamError) else None
        self._stream.open(Opening(error=error))
        self._stream.end(ending.because(error.message, retryable=retryable))


def _piece(chunk: bytes) -> tuple[Sequence[bytes], bytes]:
    return (chunk,), chunk


async def _asked_already() -> Answer:
    raise RuntimeError("a producer runs once")


def _broken_off(decoder: Decoder) -> Ending:
    ending = error_ending("upstream_truncated")
    if decoder.has_fragment:
        return ending.because("The backend's answer broke off within an event.")
    return ending.because("The backend's answer ended without its terminal event.")


def _refuse_what_cannot_be_relayed(headers: Mapping[str, str], parameters: str) -> None:
    if headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise UpstreamError("The backend compressed its stream though asked not to.")
    for parameter in parameters.lower().split(";"):
        name, _, value = parameter.strip().partition("=")
        if name == "charset" and value.strip('"') not in ("utf-8", "utf8"):
            raise UpstreamError("The backend's stream isn't UTF-8.", retryable=False)
