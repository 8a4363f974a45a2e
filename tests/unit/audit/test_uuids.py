"""UUIDs of version 7."""

from __future__ import annotations

import uuid

from gateway.audit.uuids import uuid7


def test_version_7_begins_with_the_time() -> None:
    one = uuid.UUID(uuid7(1_760_000_000_123))
    assert (one.version, one.int >> 80) == (7, 1_760_000_000_123)
