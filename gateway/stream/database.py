"""What the failures of a database become for the store of streams."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from gateway.database import RAISED, failure
from gateway.stream.store import StoreError


@asynccontextmanager
async def translated() -> AsyncIterator[None]:
    """What a database or its driver raises, as a `StoreError`."""
    try:
        yield
    except RAISED as error:
        detail, is_transient = failure(error)
        message = f"The stream store failed ({detail})."
        raise StoreError(message, is_transient=is_transient) from error
