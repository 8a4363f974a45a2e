"""The Prometheus metrics, each with a bounded set of labels."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_FIRST_TOKEN_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STORE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """One registry a gateway, so that several can live in one process."""

    content_type = "text/plain; version=0.0.4; charset=utf-8"

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        self.streams_active = Gauge(
            "sluice_streams_active", "Streams that run now.", registry=registry
        )
        self.streams = Counter(
            "sluice_streams", "Streams that have ended.", ["reason"], registry=registry
        )
        self.sessions_created = Counter(
            "sluice_sessions_created", "Streams that were started.", registry=registry
        )
        self.time_to_first_token = Histogram(
            "sluice_time_to_first_token_seconds",
            "From the request's admission to the backend's first event.",
            buckets=_FIRST_TOKEN_BUCKETS,
            registry=registry,
        )
        self.rate_limited = Counter(
            "sluice_rate_limited", "Requests refused by the rate limit.", registry=registry
        )
        self.upstream_errors = Counter(
            "sluice_upstream_errors",
            "Streams and proxied requests that the backend failed.",
            ["kind"],
            registry=registry,
        )
        self.resumes = Counter(
            "sluice_resumes",
            "Requests to go on with a stream, or to read it again.",
            ["result"],
            registry=registry,
        )
        self._store_seconds = Histogram(
            "sluice_store_seconds",
            "What the store took for an operation.",
            ["operation"],
            buckets=_STORE_BUCKETS,
            registry=registry,
        )
        self.retries = Counter(
            "sluice_retries",
            "Tries that were repeated, by what came of it.",
            ["operation", "outcome"],
            registry=registry,
        )

        self._audit_seconds = Histogram(
            "sluice_audit_commit_seconds",
            "What a transaction of the audit log took.",
            buckets=_STORE_BUCKETS,
            registry=registry,
        )
        self._audit_records = Counter(
            "sluice_audit_records", "Records that were stored.", ["class"], registry=registry
        )
        self.audit_queue = Gauge(
            "sluice_audit_queue", "Records that wait to be stored.", registry=registry
        )
        self._audit_refused = Counter(
            "sluice_audit_refused",
            "Requests refused because they couldn't be recorded.",
            registry=registry,
        )
        self._audit_lost = Counter(
            "sluice_audit_lost", "Records lost while the store was away.", registry=registry
        )
        self._audit_suppressed = Counter(
            "sluice_audit_suppressed",
            "Violations that a flood left without a record of their own.",
            registry=registry,
        )
        self._audit_fields = Counter(
            "sluice_audit_fields_refused",
            "Fields left out of a record, since its event may not hold them.",
            registry=registry,
        )
        self._audit_signed = Gauge(
            "sluice_audit_signed_timestamp_seconds",
            "When the audit log was signed last.",
            registry=registry,
        )

    def audit_committed(self, classes: Mapping[str, int], took_s: float) -> None:
        """Records by their class are stored."""
        self._audit_seconds.observe(took_s)
        for name, count in classes.items():
            self._audit_records.labels(name).inc(count)

    def audit_refused(self) -> None:
        self._audit_refused.inc()

    def audit_lost(self, count: int) -> None:
        self._audit_lost.inc(count)

    def audit_suppressed(self, count: int) -> None:
        self._audit_suppressed.inc(count)

    def audit_field_refused(self, event: str, field: str) -> None:
        self._audit_fields.inc()

    def audit_signed(self, now_s: float) -> None:
        self._audit_signed.set(now_s)

    def note_store(self, operation: str, took_s: float) -> None:
        """An operation of the store has ended, well or not."""
        self._store_seconds.labels(operation).observe(took_s)

    def counts(self, name: str) -> dict[str, int]:
        """A counter's samples by their label; with several labels, by the first."""
        counts: dict[str, int] = {}
        for metric in self._registry.restricted_registry([name]).collect():
            for sample in metric.samples:
                label = next(iter(sample.labels.values()), "")
                counts[label] = counts.get(label, 0) + int(sample.value)
        return counts

    def render(self) -> bytes:
        """The metrics in Prometheus's text format 0.0.4."""
        return generate_latest(self._registry)
