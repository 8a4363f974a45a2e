"""What all logs of a deployment say about gaps, erasures, holds, keys and each other."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from gateway.audit.canonical import Json, Object, from_text
from gateway.audit.verify.findings import Findings
from gateway.errors import AuditError

Day = tuple[str, int]  #: a log's origin, and days since 1970


@dataclass(frozen=True, slots=True)
class Sweep:
    """A range of records, or of one field of them, that was swept."""

    origin: str
    field: str | None
    swept: str
    start: int
    end: int
    cutoff_ms: int


@dataclass(frozen=True, slots=True)
class Told:
    """What the catalogue says of a log. Without a root it says only that there is one."""

    type: str
    origin: str
    size: int
    root: bytes | None


@dataclass(slots=True)
class Explained:
    """`rules` are the latest of each log: a retention that was lengthened counts."""

    sweeps: list[Sweep] = field(default_factory=list)
    planned: Counter[Day] = field(default_factory=Counter)
    done: Counter[Day] = field(default_factory=Counter)
    closed: dict[Day, tuple[int, str]] = field(default_factory=dict)
    holds: set[str] = field(default_factory=set)
    released: set[str] = field(default_factory=set)
    rules: dict[str, Object] = field(default_factory=dict)
    keys: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    catalogue: dict[str, list[Told]] = field(default_factory=dict)

    @property
    def swept_until_ms(self) -> int:
        """Records of the logs about themselves may be gone until then."""
        return max((one.cutoff_ms for one in self.sweeps if one.swept == "audit"), default=0)

    def add(self, origin: str, events: Iterable[tuple[int, Object]], findings: Findings) -> None:
        """Takes in what the log `origin` says."""
        for seq, body in events:
            try:
                self._add(origin, seq, body, findings)
            except (KeyError, ValueError, TypeError, AttributeError, AuditError):
                findings.found("malformed", seq)

    def _add(self, origin: str, seq: int, body: Object, findings: Findings) -> None:
        about = str(body.get("origin", origin))
        match body["type"]:
            case "audit.sweep":
                self.sweeps += _sweeps(origin, seq, body, findings)
            case "audit.erase":
                self.planned[about, _whole(body["day"])] += _whole(body["fields"])
            case "audit.erase.done":
                self.done[about, _whole(body["day"])] += _whole(body["fields"])
            case "audit.tombstones":
                told = (_whole(body["count"]), str(body["list"]))
                self.closed[about, _whole(body["day"])] = told
            case "audit.policy":
                self.rules[origin] = _rules(body["rules"])
            case "audit.hold":
                self.holds.add(str(body["hold"]))
            case "audit.release":
                self.released.add(str(body["hold"]))
            case "audit.key.rotated" | "audit.key.created" if body.get("public"):
                key = _digest(body["public"])
                self.keys.setdefault(origin, []).append((seq, key))
            case str(type_) if type_.startswith("log."):
                self.catalogue.setdefault(origin, []).append(_told(type_, body))


class Cover:
    """Ranges of numbers that sweeps took, each with the latest of their cutoffs."""

    def __init__(self, sweeps: Iterable[Sweep]) -> None:
        sweeps = list(sweeps)
        self._edges = sorted({edge for one in sweeps for edge in (one.start, one.end)})
        place = {edge: at for at, edge in enumerate(self._edges)}
        self._latest = [-1] * len(self._edges)
        for one in sweeps:
            for at in range(place[one.start], place[one.end]):
                self._latest[at] = max(self._latest[at], one.cutoff_ms)

    def cutoff(self, seq: int) -> int | None:
        """None where nothing was swept."""
        at = bisect_right(self._edges, seq) - 1
        return self._latest[at] if at >= 0 and self._latest[at] >= 0 else None


def _sweeps(origin: str, seq: int, body: Object, findings: Findings) -> Iterator[Sweep]:
    about, name = str(body.get("origin", origin)), body.get("field")
    ranges = body["ranges"]
    for one in ranges if isinstance(ranges, list) else []:
        start, end = map(_whole, one if isinstance(one, list) else [])
        if about == origin and end > seq:
            findings.found("sweep_ahead", seq)
        yield Sweep(
            about,
            None if name is None else str(name),
            str(body["swept"]),
            start,
            end,
            _whole(body["cutoff_ms"]),
        )


def _told(type_: str, body: Object) -> Told:
    if type_ in ("log.opened", "log.dropped"):
        return Told(type_, str(body["origin"]), 0, None)
    return Told(type_, str(body["origin"]), _whole(body["size"]), _digest(body["root"]))


def _whole(value: Json) -> int:
    if type(value) is not int:
        raise TypeError("not a whole number")
    return value


def _object(value: Json) -> Object:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return value


def _rules(value: Json) -> Object:
    """With all that is read of them later."""
    rules = _object(value)
    for one in (rules["ip_retention_s"], *_object(rules["retention_s"]).values()):
        _whole(one)
    return rules


def _digest(value: Json) -> bytes:
    raw = from_text(str(value))
    if len(raw) != 32:
        raise ValueError("not 32 bytes")
    return raw
