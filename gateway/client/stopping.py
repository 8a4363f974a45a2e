"""Asking the server to end a generation until it has heard."""

from __future__ import annotations

from gateway.client.conduct import Timing
from gateway.client.errors import Dropped, StreamError
from gateway.client.retry import Retry
from gateway.client.source import Source

_ATTEMPTS = 3


async def request_stop(
    source: Source, stream_id: str | None, retry: Retry, timing: Timing
) -> dict[str, object] | None:
    """The server's account of the stream; None where there is no way to stop it.

    Raises:
        StreamError: it refused, or three attempts failed.
    """
    attempt = 1
    while True:
        try:
            return await source.stop(stream_id)
        except Dropped as drop:
            failure = drop.error
        except StreamError as error:
            if not retry.accepts(error.status or 0, error.retry_after_s):
                raise
            failure = error
        if attempt == _ATTEMPTS:
            raise failure
        jitter_s = timing.uniform(0, retry.ceiling_s(attempt))
        await timing.sleep(max(jitter_s, failure.retry_after_s or 0))
        attempt += 1
