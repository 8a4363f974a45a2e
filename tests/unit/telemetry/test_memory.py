"""What the process holds, and how much more than at its start."""

from __future__ import annotations

from gateway.telemetry.memory import Memory, resident_bytes


def test_growth_is_what_came_after_the_mark() -> None:
    memory = Memory()
    held = bytearray(b"x" * 40_000_000)
    assert 30_000_000 < memory.growth_bytes() < resident_bytes()
    memory.mark()
    assert memory.growth_bytes() < 30_000_000
    assert len(held) == 40_000_000
