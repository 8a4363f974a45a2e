"""How many streams an owner may have at once. How often they may ask is `gateway.limit.rate`'s."""

from __future__ import annotations

import itertools
import threading
from types import TracebackType

from gateway.errors import TooManyRequests

#: Nobody knows when one of the owner's streams will end: a guess that doesn't invite hammering.
RETRY_AFTER_S = 5.0


class Lease:
    """One place of an owner's. It ends by `release`, at the end of a `with`, or when the last
    reference to it goes, so that no path through the code can lose a place."""

    __slots__ = ("_leases", "_number", "_owner")

    def __init__(self, leases: OwnerLeases, owner: str, number: int) -> None:
        self._leases: OwnerLeases | None = leases
        self._owner = owner
        self._number = number

    def release(self) -> None:
        """Gives the place back. Further calls do nothing."""
        leases, self._leases = self._leases, None
        if leases is not None:
            leases._end(self._owner, self._number)  # noqa: SLF001

    def __del__(self) -> None:
        self.release()

    def __enter__(self) -> Lease:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


class OwnerLeases:
    """Places for `limit` streams per owner; 0 doesn't limit. Owners without one take no memory."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._live: dict[str, set[int]] = {}
        self._numbers = itertools.count()
        # A lease may be collected in another thread, and in the middle of `acquire` in this one.
        self._lock = threading.RLock()

    def __len__(self) -> int:
        """Owners who have at least one lease."""
        return len(self._live)

    def count(self, owner: str) -> int:
        """The owner's live leases."""
        return len(self._live.get(owner, ()))

    def acquire(self, owner: str) -> Lease:
        """
        Raises:
            TooManyRequests: `too_many_streams`, the owner has no place left.
        """
        number = next(self._numbers)
        with self._lock:
            live = self._live.get(owner, set())
            if self._limit and len(live) >= self._limit:
                raise TooManyRequests(
                    "You have too many streams at once.",
                    code="too_many_streams",
                    retry_after_s=RETRY_AFTER_S,
                )
            live.add(number)
            # Again, since the collector may have ended the owner's last lease a moment ago.
            self._live[owner] = live
        return Lease(self, owner, number)

    def _end(self, owner: str, number: int) -> None:
        with self._lock:
            live = self._live.get(owner, set())
            live.discard(number)
            if not live:
                self._live.pop(owner, None)
