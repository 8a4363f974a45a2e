"""Which events there are, and what a record of each may hold: the allow-list, in code.

docs/audit-format.md explains them; a test holds the page to this table. A field that isn't here
doesn't get into a record, and no rule lets a client's own words through (`gateway.audit.fields`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from gateway.audit.fields import (
    API_KEY_ID,
    DAY,
    DIGEST,
    KEY_ID,
    ORIGIN,
    OTHER,
    STREAM_ID,
    TIME_MS,
    UUID,
    VERSION,
    Fact,
    Known,
    Ranges,
    Rule,
    Table,
    Whole,
    one_of,
)
from gateway.audit.policy import Cls

#: Personal fields that are 32 bytes of a keyed hash.
HASHES = frozenset({"subject", "query", "session", "target"})
#: Personal fields in clear.
CLEAR = frozenset({"email", "ip", "operator", "reference"})

#: How a stream ended, the same words as everywhere; then ends that no stream has: the request was
#: refused before it began, its end was never recorded.
OUTCOMES = frozenset(
    {
        *("completed", "incomplete", "user_requested", "duration_cap", "client_gone"),
        *("server_shutdown", "timeout", "interrupted", "event_too_large"),
        *("upstream_error", "upstream_truncated", "upstream_idle"),
        *("upstream_timeout", "upstream_unavailable"),
        *("refused", "audit_failed", "unknown"),
    }
)
ROUTES = (
    *("chat", "/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/messages"),
    *("/v1/embeddings", "/api/chat", "/api/generate", "stream", "conversation", "proxied"),
)
AUTH_METHODS = ("none", "api_key", "jwt", "proxy", "link", "admin")


@dataclass(frozen=True, slots=True)
class EventType:
    """One kind of event. `needed` and `others` are its fields, `rules` both; `personal` those that
    go in as salted commitments, their values apart."""

    name: str
    cls: Cls
    needed: Mapping[str, Rule]
    others: Mapping[str, Rule]
    rules: Mapping[str, Rule]
    personal: frozenset[str]


_TYPES: dict[str, EventType] = {}
TYPES: Mapping[str, EventType] = MappingProxyType(_TYPES)


def _event(
    cls: Cls,
    name: str,
    needed: Mapping[str, Rule],
    others: Mapping[str, Rule] | None = None,
    personal: str = "",
) -> None:
    others = others or {}
    rules = {**others, **needed}
    _TYPES[name] = EventType(name, cls, needed, others, rules, frozenset(personal.split()))


_COUNT = Whole()
_MS = Whole()
_ROUTE = one_of(*ROUTES, OTHER)
_AUTH = one_of(*AUTH_METHODS, OTHER)
_CLASS = one_of(*Cls)
_KEY_KIND = one_of("query", "subject", "sign")
_REQUEST: Mapping[str, Rule] = {"rid": UUID}
_HEAD: Mapping[str, Rule] = {"origin": ORIGIN, "size": _COUNT, "root": DIGEST}
_STREAM: Mapping[str, Rule] = {"start": _COUNT, "stream": STREAM_ID}
_WHO: Mapping[str, Rule] = {"auth": _AUTH, "route": _ROUTE}

_event(
    Cls.QUERY,
    "query.start",
    {**_REQUEST, **_WHO},
    {
        "model": Known("models"),
        "upstream": Known("upstreams"),
        "strict": one_of("async", "relay", "dispatch", "end"),
        "stream": STREAM_ID,
        "streaming": Fact(),
    },
    "subject query session email",
)
_event(
    Cls.QUERY,
    "query.end",
    {**_REQUEST, "outcome": one_of(*OUTCOMES, OTHER)},
    {
        **_STREAM,
        "status": Whole(100, 599),
        **dict.fromkeys(("ttft_ms", "dur_ms"), _MS),
        **dict.fromkeys(("bytes", "events", "tok_in", "tok_out"), _COUNT),
        **dict.fromkeys(("terminal", "estimated"), Fact()),
    },
)
_event(
    Cls.QUERY,
    "stream.stopped",
    _REQUEST,
    {**_STREAM, **_WHO, "by": one_of("owner", "holder", "admin", "graphql", OTHER)},
    "subject",
)
_event(
    Cls.QUERY,
    "stream.resumed",
    _REQUEST,
    {**_STREAM, **_WHO, "after": _COUNT, "status": Whole(100, 599)},
    "subject",
)

for _name in ("auth.login", "auth.key_used_first", "auth.consent", "auth.link_made"):
    _event(Cls.AUTH, _name, _WHO, _REQUEST, "subject email")

for _name in (
    *("security.auth_failed", "security.rate_limited", "security.forbidden"),
    *("security.smuggling", "security.origin_denied"),
):
    _event(
        Cls.SECURITY,
        _name,
        {
            "reason": one_of(
                *("missing", "malformed", "unknown_key", "revoked", "expired", "bad_signature"),
                *("bad_claims", "not_owner", "requests", "streams", "bad_framing", "bad_host"),
                *("cross_site", "origin", "admin_token", "link", OTHER),
            )
        },
        {**_REQUEST, **_WHO, "status": Whole(100, 599), "count": _COUNT, "window_s": _COUNT},
        "ip subject",
    )

_event(
    Cls.ADMIN,
    "admin.config",
    {"policy_id": DIGEST},
    {
        "version": VERSION,
        **dict.fromkeys(("streaming", "debug", "emergency"), Fact()),
        "rollout_bp": Whole(0, 10_000),
        "mode": one_of("realtime", "high_performance", "balanced", "battery_saver", OTHER),
    },
    "operator",
)
_event(Cls.ADMIN, "admin.key_created", {"key": API_KEY_ID}, personal="operator")
_event(Cls.ADMIN, "admin.key_revoked", {"key": API_KEY_ID}, personal="operator")

#: What an `audit.policy` record says: `gateway.audit.policy.Policy.rules`.
_RULES = Table(
    {
        "retention_s": Table(dict.fromkeys(Cls, _COUNT)),
        **dict.fromkeys(("ip_retention_s", "ip_v4_bits", "ip_v6_bits"), _COUNT),
        "email_query": Fact(),
        "query_scope": one_of("subject", "tenant"),
    }
)
_SPAN: Mapping[str, Rule] = {"count": _COUNT, "from_ms": TIME_MS, "to_ms": TIME_MS}
_CAUSE: Mapping[str, Rule] = {
    "reason": one_of("queue_full", "store_away", "store_slow", "disk_full", "flood", OTHER)
}
_TARGET_LOG: Mapping[str, Rule] = {"origin": ORIGIN}
_FIELD = one_of(*HASHES, *CLEAR)
_HOLD: Mapping[str, Rule] = {"hold": UUID}
_CASE: Mapping[str, Rule] = {"request": UUID}
_ERASED: Mapping[str, Rule] = {"day": DAY, "fields": _COUNT, "records": _COUNT}

_event(Cls.AUDIT, "audit.open", {"version": VERSION}, {"public": DIGEST, "resumed": Fact()})
_event(Cls.AUDIT, "audit.close", {}, {"reason": one_of("shutdown", "rotated", OTHER)})
_event(Cls.AUDIT, "audit.policy", {"rules": _RULES}, personal="operator")
_event(
    Cls.AUDIT,
    "audit.anchor",
    {"size": _COUNT, "root": DIGEST},
    {"offset_ms": Whole(-(2**53) + 1)},
)
_event(
    Cls.AUDIT,
    "audit.sweep",
    {"sweep": UUID, "swept": _CLASS, "cutoff_ms": TIME_MS, "ranges": Ranges(), "count": _COUNT},
    {"field": _FIELD, **_TARGET_LOG},
)
_event(Cls.AUDIT, "audit.sweep.done", {"sweep": UUID, "count": _COUNT})
_event(
    Cls.AUDIT,
    "audit.erase",
    {**_CASE, **_ERASED},
    {"whole": Fact(), **_TARGET_LOG},
    "operator reference",
)
_event(Cls.AUDIT, "audit.erase.done", {**_CASE, **_ERASED}, _TARGET_LOG)
_event(
    Cls.AUDIT,
    "audit.erase.refused",
    {**_CASE, "reason": one_of("art_17_3_b", "art_17_3_e", "not_found", "identity", OTHER)},
    _HOLD,
    "operator reference",
)
_event(Cls.AUDIT, "audit.tombstones", {"day": DAY, "count": _COUNT, "list": DIGEST}, _TARGET_LOG)
_event(
    Cls.AUDIT,
    "audit.hold",
    {**_HOLD, "until_ms": TIME_MS, "scope": one_of("subject", "time", "request")},
    {
        "reason": one_of("legal_claim", "authority", "restriction", "investigation", OTHER),
        **dict.fromkeys(("from_ms", "to_ms"), TIME_MS),
        "records": _COUNT,
        **_REQUEST,
    },
    "operator reference target",
)
_event(Cls.AUDIT, "audit.release", _HOLD, personal="operator reference")
_event(
    Cls.AUDIT,
    "audit.export",
    {**_CASE, "records": _COUNT},
    {"fields": _COUNT, "scope": one_of("subject", "whole", "time")},
    "operator reference target",
)
_event(
    Cls.AUDIT,
    "audit.read",
    {"verb": one_of("find", "prove", "verify", "report", OTHER)},
    {"records": _COUNT},
    "operator reference",
)
_event(Cls.AUDIT, "audit.key.created", {"kind": _KEY_KIND, "key": KEY_ID}, {"public": DIGEST})
_event(
    Cls.AUDIT,
    "audit.key.rotated",
    {"kind": _KEY_KIND, "key": KEY_ID},
    {"before": KEY_ID, "public": DIGEST},
    "operator",
)
_event(Cls.AUDIT, "audit.key.destroyed", {"kind": _KEY_KIND, "key": KEY_ID}, {}, "operator")
_event(Cls.AUDIT, "audit.gap", {**_SPAN, **_CAUSE})
_event(Cls.AUDIT, "audit.suppressed", {**_SPAN, **_CAUSE}, {"class": _CLASS})
_event(
    Cls.AUDIT,
    "audit.clock",
    {"offset_ms": Whole(-(2**53) + 1)},
    {"action": one_of("noted", "sweep_refused", "sweep_resumed", OTHER)},
)
_event(Cls.AUDIT, "audit.unavailable", {**_SPAN, **_CAUSE})
_event(Cls.AUDIT, "audit.restored", {"applied": _COUNT})

# The catalogue: one log for a deployment that says which logs there are.
_event(Cls.AUDIT, "log.opened", {"origin": ORIGIN}, {"public": DIGEST})
for _name in ("log.head", "log.closed", "log.abandoned", "log.dropped"):
    _event(Cls.AUDIT, _name, _HEAD)
