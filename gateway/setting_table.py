"""The table of the settings: name, type, default and meaning.

`0` switches a limit, clock or cap off.
docs/settings.md is made from it, under the same headings (scripts/docs.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import (
    AliasChoices,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.setting_types import (
    AuditName,
    Names,
    Networks,
    Origins,
    Rate,
    Route,
    Routes,
    Token,
    Url,
)


class Table(BaseSettings):
    """Every setting by its environment name, in lower case. Immutable."""

    model_config = SettingsConfigDict(
        frozen=True, extra="ignore", env_ignore_empty=True, populate_by_name=True
    )

    # Where it listens
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8080, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    unix_socket: Path | None = Field(
        None, description="Path of a Unix socket to listen on instead of `HOST` and `PORT`."
    )
    tls_cert: Path | None = Field(None, description="PEM file with the certificate chain.")
    tls_key: Path | None = Field(None, description="PEM file with the certificate's key.")
    allowed_hosts: Names = Field(
        (), description="Values of `Host` that are answered, without port; empty answers all."
    )
    keepalive_seconds: NonNegativeFloat = Field(
        75, description="How long an idle connection, or one with a half-sent header, stays open."
    )
    shutdown_grace_seconds: NonNegativeFloat = Field(
        10, description="How long running streams may go on after SIGTERM or SIGINT."
    )

    # The backend
    upstream_url: Url | None = Field(
        None,
        validation_alias=AliasChoices("UPSTREAM_URL", "RAG_BACKEND_URL"),
        description="The backend's base URL; a trailing `/v1` is dropped. Alias `RAG_BACKEND_URL`.",
    )
    upstream_dialect: Literal["openai", "openai-responses", "anthropic", "ollama", "rag"] = Field(
        "openai", description="What the typed route speaks to the backend."
    )
    upstream_chat_path: Route | None = Field(
        None, description="The path that the typed route asks; by default the dialect's own."
    )
    upstream_model: str | None = Field(None, description="The model that the typed route asks for.")
    upstream_max_tokens: NonNegativeInt = Field(
        0,
        description="Length limit that the typed route asks for, in tokens; 0 leaves it to the "
        "backend (Anthropic, which demands one: 4096).",
    )
    upstream_api_key: SecretStr | None = Field(
        None, description="Credential for the backend; replaces the client's own."
    )
    upstream_forward_authorization: bool = Field(
        False, description="With `AUTH_MODE` set, pass the client's credential to the backend too."
    )
    upstream_connect_seconds: NonNegativeFloat = Field(
        5, description="Clock: connecting to the backend."
    )
    upstream_preconnect: int = Field(
        1,
        ge=0,
        le=100,
        description="Connections that are opened ahead while questions come, so that the next one "
        "waits for no handshake; 0 opens none.",
    )
    upstream_first_token_seconds: NonNegativeFloat = Field(
        30, description="Clock: from the request to the backend's first event."
    )
    upstream_idle_seconds: NonNegativeFloat = Field(
        30, description="Clock: between two events; the backend's comments don't count."
    )
    proxy_passthrough: bool = Field(
        True, description="Pass every path that isn't the gateway's own to the backend, unchanged."
    )

    # Flags
    enable_sse_streaming: bool = Field(
        False, description="Switches streaming on; off, the gateway is a plain proxy."
    )
    sse_streaming_rollout_percent: float = Field(
        100, ge=0, le=100, description="Share of users who get streaming; sticky per user."
    )

    # Streams
    chat_stream_aliases: Routes = Field(
        (), description="Further paths of the typed route, comma-separated."
    )
    heartbeat_interval: NonNegativeFloat = Field(
        5, description="Silence in seconds after which a heartbeat is sent; 0 sends none."
    )
    silence_threshold: NonNegativeFloat = Field(
        15, description="Told to clients: silence in seconds that means a dead connection."
    )
    stream_max_seconds: NonNegativeFloat = Field(
        60, description="Duration cap of a stream on the typed route."
    )
    provider_stream_max_seconds: NonNegativeFloat = Field(
        0, description="Duration cap of a stream on `/v1/*`."
    )
    commit_delay_ms: NonNegativeInt = Field(
        2000, description="How long the 200 waits for the backend's answer, in milliseconds."
    )
    detach_grace_seconds: NonNegativeFloat = Field(
        120, description="How long a typed stream goes on when its last reader has gone."
    )
    resume_ttl_seconds: NonNegativeFloat = Field(
        600, description="How long a stream can be read after its end: the replay window."
    )
    connection_max_age_seconds: NonNegativeFloat = Field(
        300,
        description="A typed stream's connection is closed between two events after 0.8 to 1 times "
        "this, and the client resumes.",
    )
    stream_compression: Literal["off", "auto"] = Field(
        "off", description="`auto` compresses event streams where the client accepts it."
    )
    stream_session_timeout_ms: NonNegativeInt = Field(
        300_000, description="A stream with neither a reader nor an event for so long is ended."
    )
    stream_cleanup_interval_ms: PositiveInt = Field(
        30_000, description="How often expired streams are deleted from the store."
    )
    session_timeout_ms: NonNegativeInt = Field(
        1_800_000, description="A conversation that was idle for so long is forgotten."
    )
    cleanup_interval_ms: NonNegativeInt = Field(
        600_000, description="How often idle conversations are looked for."
    )
    stream_link_seconds: PositiveInt = Field(
        600, description="Longest life of a link to a stream, and of one that asks for none."
    )
    stream_max_readers: NonNegativeInt = Field(
        64, description="Readers of one stream at once; one more gets 429."
    )
    write_stall_seconds: NonNegativeFloat = Field(
        30, description="A client that takes nothing for so long is disconnected."
    )
    stream_ids: bool = Field(True, description="Give the events of `/v1/*` an `id:` line.")
    stream_buffer_bytes: PositiveInt = Field(
        1024 * 1024, description="Log of one stream, in bytes."
    )
    event_max_bytes: PositiveInt = Field(1024 * 1024, description="One event, in bytes.")
    buffer_total_bytes: NonNegativeInt = Field(
        512 * 1024 * 1024,
        description="All logs together, in bytes; ended streams make way, then new ones get 503.",
    )
    backpressure_policy: Literal["pause", "detach"] = Field(
        "pause",
        description="A client slower than the log is long: `pause` reading the backend, or "
        "`detach` the client.",
    )
    chunk_delay_ms: NonNegativeInt = Field(
        0, description="Least time between two writes to a client, in milliseconds."
    )
    performance_mode: Literal["realtime", "high_performance", "balanced", "battery_saver"] = Field(
        "realtime",
        description="How often a client is written to: at once, every 4, 8 or 33 ms. Per request "
        "by `X-Performance-Mode`.",
    )
    max_stream_sessions: NonNegativeInt = Field(
        100, description="Active streams; one more gets 503."
    )
    stream_max_per_owner: NonNegativeInt = Field(
        0, description="Active streams of one owner; one more gets 429."
    )
    request_max_bytes: PositiveInt = Field(
        32 * 1024 * 1024, description="Body of a generation request on `/v1/*`, in bytes."
    )
    request_body_seconds: NonNegativeFloat = Field(
        30, description="Clock: receiving a request body that the gateway reads itself."
    )

    # Who may
    auth_mode: Literal["none", "api_key", "jwt"] = Field(
        "none", description="How clients prove who they are."
    )
    api_keys_file: Path | None = Field(
        None, description="File of API keys, written by `sluice keys add`."
    )
    jwt_jwks_url: Url | None = Field(None, description="Where the issuer publishes its keys.")
    jwt_public_key_file: Path | None = Field(None, description="PEM file with the issuer's key.")
    jwt_audience: str | None = Field(None, description="Required `aud` of a token.")
    jwt_issuer: str | None = Field(None, description="Required `iss` of a token.")
    admin_token: Token | None = Field(
        None,
        description="Opens the dashboard and `/api/admin`, 16 characters or more; unset, there "
        "are none.",
    )
    trusted_proxies: Networks = Field(
        (), description="Networks whose `X-Forwarded-For` and `X-User-Id` are believed."
    )
    allowed_origins: Origins = Field((), description="Origins that may call from a browser.")
    rate_limit: Rate = Field("20/minute", description="Generation requests per user or address.")

    # What is kept
    database_url: SecretStr | None = Field(
        None, description="PostgreSQL for stream sessions; without it, SQLite in `DATA_DIR`."
    )
    partial_encryption_key: SecretStr | None = Field(
        None,
        description="Keys, 32 bytes each in base64 or hex, that encrypt stored answers; the first "
        "encrypts, all decrypt.",
    )
    stream_store_max_bytes: NonNegativeInt = Field(
        1024 * 1024 * 1024, description="Stored answers, in bytes; the oldest ended ones go first."
    )
    stream_error_max_retries: NonNegativeInt = Field(
        3,
        description="Retries of a question that the backend didn't take. Failed writes to the "
        "store go on for ever, after so many at the longest wait.",
    )
    stream_error_base_delay_ms: PositiveInt = Field(
        1000, description="Wait before the first retry, in milliseconds."
    )
    stream_error_max_delay_ms: PositiveInt = Field(
        10_000,
        description="Longest wait between two retries, in milliseconds; what the backend's "
        "`Retry-After` puts off further isn't retried.",
    )
    stream_error_backoff_multiplier: float = Field(
        2, ge=1, description="How much longer each wait is than the one before."
    )
    breaker_failure_threshold: NonNegativeInt = Field(
        5,
        description="Questions in a row that the backend fails, after which it is left alone: "
        "further ones get 503.",
    )
    breaker_reset_seconds: PositiveFloat = Field(
        30, description="How long that lasts. Then one question tries whether the backend is back."
    )
    stream_error_log_buffer_size: NonNegativeInt = Field(
        1000,
        description="Failures of streams, backend and store that are remembered for `/health`.",
    )
    stream_error_enable_metrics: bool = Field(True, description="Whether retries are counted.")
    stream_error_enable_logging: bool = Field(
        True, description="Whether each failed try at the backend or the store gets a log line."
    )

    # The audit log
    audit_mode: Literal["off", "async", "relay", "dispatch", "end"] = Field(
        "relay",
        description="What waits for a record: nothing (`async`), the answer (`relay`), the backend "
        "too (`dispatch`), the last event too (`end`).",
    )
    audit_retention_days: PositiveFloat = Field(
        90, description="How long records of questions, logins and violations are kept."
    )
    audit_ip_retention_days: PositiveFloat = Field(
        30, description="How long an address is kept in a record, at most as long as the record."
    )
    audit_preset: Literal["gdpr-min", "cnil", "pci", "ai-act-high-risk"] | None = Field(
        None, description="Retention by a named set of rules, in place of the two before."
    )
    audit_truncate_ip: bool = Field(
        False, description="Keep the network of an address only, /24 or /48."
    )
    audit_query_email: bool = Field(
        False, description="Keep the e-mail of an authenticated user with each question too."
    )
    audit_query_scope: Literal["subject", "tenant"] = Field(
        "subject", description="Whether equal questions look equal for one person, or for all."
    )
    audit_models: Names = Field(
        (), description="Names of models that records may hold; any other is `other`."
    )
    audit_proxied: bool = Field(
        False, description="Record requests for all other paths of the backend too."
    )
    audit_origin: AuditName = Field(
        "sluice", description="What the names of this deployment's logs begin with."
    )
    audit_keys_dir: Path | None = Field(
        None, description="Where the log's keys are; by default `audit-keys` in `DATA_DIR`."
    )
    audit_erasures_file: Path | None = Field(
        None,
        description="The erasure journal, which keeps a restored backup from bringing back what was"
        " erased; by default `erasures.jsonl` beside the keys. Keep it apart from the backups.",
    )
    audit_key_encryption_key: SecretStr | None = Field(
        None,
        description="Keys, 32 bytes each in base64 or hex, that encrypt the log's keys; the first "
        "encrypts, all decrypt.",
    )
    audit_checkpoint_seconds: PositiveFloat = Field(60, description="How often the log is signed.")
    audit_sweep_seconds: NonNegativeFloat = Field(
        3600,
        description="How often what has been kept long enough is swept; `0`: not by the gateway.",
    )
    audit_checkpoint_file: Path | None = Field(
        None, description="A file that gets a line for each checkpoint; keep it elsewhere."
    )
    audit_checkpoint_command: str | None = Field(
        None, description="A command that gets each checkpoint on its standard input."
    )
    audit_lines: Literal["off", "checkpoints", "records"] = Field(
        "checkpoints",
        description="JSON lines on standard output, without personal data, for a log shipper.",
    )
    audit_commit_seconds: PositiveFloat = Field(
        2, description="How long a request waits for its record before it gets 503."
    )
    audit_ballast_bytes: NonNegativeInt = Field(
        64 * 1024 * 1024,
        description="A file that is given up when the disk is full, so that the log can say so.",
    )

    # Traces, analytics and alerts
    otlp_traces_url: Url | None = Field(
        None,
        description="Where spans go, by OTLP over HTTP, such as http://collector:4318/v1/traces; "
        "needs the extra `otel`. Unset, none are made.",
    )
    analytics_max_bytes: NonNegativeInt = Field(
        16 * 1024 * 1024,
        description="How much of the anonymous life of streams is kept in `DATA_DIR`, in bytes; 0 "
        "keeps none.",
    )
    alert_memory_warning_mb: NonNegativeFloat = Field(
        100, description="Alert when the process holds so many megabytes more than at its start."
    )
    alert_memory_critical_mb: NonNegativeFloat = Field(
        200, description="From where on that alert is critical."
    )
    alert_error_warning_percent: float = Field(
        5, ge=0, le=100, description="Alert when more than this share of streams fails."
    )
    alert_error_critical_percent: float = Field(
        10, ge=0, le=100, description="From where on that alert is critical."
    )
    alert_window_seconds: PositiveFloat = Field(
        300, description="Which ended streams the error rate is about: those of the last so long."
    )
    alert_min_streams: NonNegativeInt = Field(
        10, description="Fewer ended streams than this raise no alert."
    )

    # The process
    data_dir: Path = Field(Path("data"), description="Where keys and SQLite files are kept.")
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severity that is logged."
    )
    log_format: Literal["json", "text"] = Field("json", description="Form of the log lines.")
