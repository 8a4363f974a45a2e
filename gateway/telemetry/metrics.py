"""The Prometheus metrics, each with a bounded set of labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.exposition import choose_encoder

import gateway
from gateway.telemetry.delivery import Deliveries
from gateway.telemetry.process import ProcessState

_STORE_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_LAG_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)


class Metrics:
    """One registry a gateway, so that several can live in one process."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        registry.register(ProcessState())
        build = Gauge("sluice_build_info", "1, of a version.", ["version"], registry=registry)
        build.labels(gateway.__version__).set(1)
        self.deliveries = Deliveries(registry)
        self.streams_active = Gauge(
            "sluice_streams_active", "Streams that run now.", registry=registry
        )
        self.streams = Counter(
            "sluice_streams", "Streams that have ended.", ["reason"], registry=registry
        )
        self.sessions_created = Counter(
            "sluice_sessions_created", "Streams that were started.", registry=registry
        )
        self.connections = Counter(
            "sluice_connections",
            "Requests for an event stream, by whether it was opened.",
            ["result"],
            registry=registry,
        )
        for result in ("opened", "refused", "failed", "declined"):
            self.connections.labels(result)  # a rate misses the first of what wasn't there before
        self._errors = Counter(
            "sluice_request_errors",
            "Requests that the gateway answered with an error.",
            ["code"],
            registry=registry,
        )
        self.loop_lag = Histogram(
            "sluice_event_loop_lag_seconds",
            "How late the clocks' ticker woke up: what everything else waits too.",
            buckets=_LAG_BUCKETS,
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

        self._audit_swept = Counter(
            "sluice_audit_swept",
            "Records and addresses that were taken since their time was over.",
            ["class"],
            registry=registry,
        )
        self._audit_overdue = Gauge(
            "sluice_audit_overdue",
            "Classes of which something was kept for longer than its time and 25 hours.",
            registry=registry,
        )
        self._audit_oldest = Gauge(
            "sluice_audit_oldest_record_age_seconds",
            "Age of the oldest record, or address, that no hold keeps, at the last sweep.",
            ["class"],
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

    def audit_swept(self, what: str, count: int) -> None:
        self._audit_swept.labels(what).inc(count)

    def audit_oldest(self, ages_s: Mapping[str, float], overdue: int) -> None:
        """Ages by class, and of addresses as `ip`; of what isn't named there is nothing. `overdue`
        counts the classes of which something should be gone."""
        self._audit_overdue.set(overdue)
        self._audit_oldest.clear()
        for name, age_s in ages_s.items():
            self._audit_oldest.labels(name).set(age_s)

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

    def request_refused(self, code: str) -> None:
        """A request got an error in place of an answer."""
        self._errors.labels(code).inc()

    def state(self, name: str, meaning: str, read: Callable[[], float]) -> None:
        """Adds a gauge that is read when somebody asks for the metrics, and costs nothing else."""
        Gauge(name, meaning, registry=self._registry).set_function(read)

    def render(self) -> bytes:
        """The metrics in Prometheus's text format 0.0.4."""
        return generate_latest(self._registry)

    def render_for(self, accept: str) -> tuple[bytes, str]:
        """The metrics in the form that an `Accept` header wants, and its media type: as `render`,
        or OpenMetrics, which has exemplars."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type
