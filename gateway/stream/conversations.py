"""Conversations: which chat of the backend a client's conversation goes on with.

A backend that keeps the history itself names its chat and, with each answer, the message that the
next question follows. What was named is kept here and told with the next question; a conversation
that nobody used for a while is forgotten.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True)
class Conversation:
    """Times are in seconds of the registry's clock, `created_at` of the wall."""

    owner: str
    created_at: float
    created: float
    last_accessed: float
    chat_id: str | None = None
    parent_id: str | None = None

    def follow(self, chat_id: str | None, message_id: str | None) -> None:
        """The backend has named its chat, or the message that the next question follows."""
        self.chat_id = chat_id or self.chat_id
        self.parent_id = message_id or self.parent_id


@dataclass(frozen=True, slots=True)
class Counts:
    active: int
    total_created: int
    total_cleaned: int
    oldest_age_ms: int
    newest_age_ms: int


class Conversations:
    """The conversations of this process, by owner and the client's own id.

    Args:
        timeout_s: Idle ones are forgotten after this; 0 keeps them.
        sweep_s: How often `tick` looks for idle ones; 0 looks each time.
    """

    def __init__(
        self, timeout_s: float, sweep_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._timeout_s = timeout_s
        self._sweep_s = sweep_s
        self._clock = clock
        self._swept = clock()
        self._live: dict[tuple[str, str], Conversation] = {}
        self._total_created = 0
        self._total_cleaned = 0

    def use(self, owner: str, conversation_id: str) -> Conversation:
        """The conversation, made if there is none; counts as a use."""
        now = self._clock()
        key = (owner, conversation_id)
        found = self._live.get(key)
        if found is None:
            found = self._live[key] = Conversation(owner, time.time(), now, now)
            self._total_created += 1
        found.last_accessed = now
        return found

    def find(self, owner: str, conversation_id: str) -> Conversation | None:
        """The conversation, without using it."""
        return self._live.get((owner, conversation_id))

    def delete(self, owner: str, conversation_id: str) -> bool:
        """Forgets one; whether there was one."""
        if self._live.pop((owner, conversation_id), None) is None:
            return False
        self._total_cleaned += 1
        return True

    def age_ms(self, conversation: Conversation) -> int:
        return round((self._clock() - conversation.created) * 1000)

    def tick(self) -> None:
        """Sweeps if it is time to."""
        now = self._clock()
        if now - self._swept >= self._sweep_s:
            self._swept = now
            self.sweep()

    def sweep(self) -> int:
        """Forgets the idle ones; how many."""
        if not self._timeout_s:
            return 0
        oldest_use = self._clock() - self._timeout_s
        idle = [key for key, one in self._live.items() if one.last_accessed <= oldest_use]
        for key in idle:
            del self._live[key]
        self._total_cleaned += len(idle)
        return len(idle)

    def counts(self) -> Counts:
        ages = [self.age_ms(one) for one in self._live.values()]
        return Counts(
            active=len(ages),
            total_created=self._total_created,
            total_cleaned=self._total_cleaned,
            oldest_age_ms=max(ages, default=0),
            newest_age_ms=min(ages, default=0),
        )

    def close(self) -> None:
        """Forgets everything. Safe to call twice."""
        self._total_cleaned += len(self._live)
        self._live.clear()
