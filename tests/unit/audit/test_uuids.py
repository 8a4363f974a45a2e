"""UUIDs as text."""

from __future__ import annotations

import uuid

from gateway.audit.uuids import random_uuid, uuid7


def test_random_ones_are_of_version_4_and_all_different() -> None:
    made = {random_uuid() for _ in range(1000)}
    assert len(made) == 1000
    for text in made:
        one = uuid.UUID(text)
        assert (str(one), one.version, one.variant) == (text, 4, uuid.RFC_4122)


def test_every_random_bit_is_used() -> None:
    seen_ones = seen_zeros = 0
    for _ in range(200):
        one = uuid.UUID(random_uuid()).int
        seen_ones |= one
        seen_zeros |= ~one
    fixed = 0xF << 76 | 0x3 << 62
    assert (seen_ones | fixed) & (1 << 128) - 1 == (1 << 128) - 1
    assert (seen_zeros | fixed) & (1 << 128) - 1 == (1 << 128) - 1


def test_version_7_begins_with_the_time() -> None:
    one = uuid.UUID(uuid7(1_760_000_000_123))
    assert (one.version, one.int >> 80) == (7, 1_760_000_000_123)
