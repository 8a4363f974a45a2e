"""What a verifier found: the codes of docs/audit-format.md, how often, and where."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

GOOD, USAGE, BROKEN, UNANCHORED, OVERDUE = range(5)
#: Findings that are no sign of tampering, and the exit code of each.
_MILD = {"overdue": OVERDUE, "age_unproven": UNANCHORED, "not_anchored": UNANCHORED}
#: Places of one code that are kept; the rest is only counted.
_MAX_PLACES = 1000


class Bad(Exception):
    """A finding that ends the look at something. Its argument is the code."""


@dataclass(slots=True)
class Findings:
    """Of one log. `counts` are of records: full, redacted, pruned, held …"""

    origin: str
    size: int
    counts: Counter[str] = field(default_factory=Counter)
    codes: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def found(self, code: str, where: object = "") -> None:
        self.codes[code] += 1
        places = self.places.setdefault(code, [])
        if len(places) < _MAX_PLACES:
            places.append(str(where))

    def to_object(self) -> dict[str, object]:
        """As JSON."""
        told = [
            {"code": code, "count": count, "where": self.places[code]}
            for code, count in self.codes.items()
        ]
        return {"log": self.origin, "size": self.size, **self.counts, "findings": told}


def exit_code(found: Iterable[Findings], *, needs_anchor: bool) -> int:
    """Of the worst finding."""
    codes = {_MILD.get(code, BROKEN) for one in found for code in one.codes}
    if not needs_anchor:
        codes.discard(UNANCHORED)
    return next((code for code in (BROKEN, UNANCHORED, OVERDUE) if code in codes), GOOD)
