"""The settings, read once at the start: what they must be together, and how they are shown.

`gateway.setting_table` has them one by one, `gateway.environment` reads them.
"""

from __future__ import annotations

from pydantic import SecretStr, model_validator

from gateway.setting_table import Table


class Settings(Table):
    """Every setting. Immutable.

    Raises:
        ValidationError: pydantic's; a value can't be, or two contradict each other.
    """

    @model_validator(mode="after")
    def _check_together(self) -> Settings:
        for wrong, message in (
            (bool(self.tls_cert) != bool(self.tls_key), "TLS_CERT and TLS_KEY need each other"),
            (
                self.auth_mode == "api_key" and self.api_keys_file is None,
                "AUTH_MODE=api_key needs API_KEYS_FILE",
            ),
            (
                self.auth_mode == "jwt" and not (self.jwt_jwks_url or self.jwt_public_key_file),
                "AUTH_MODE=jwt needs JWT_JWKS_URL or JWT_PUBLIC_KEY_FILE",
            ),
            (
                bool(self.jwt_jwks_url and self.jwt_public_key_file),
                "JWT_JWKS_URL and JWT_PUBLIC_KEY_FILE exclude each other",
            ),
            (
                self.event_max_bytes > self.stream_buffer_bytes,
                "EVENT_MAX_BYTES is larger than STREAM_BUFFER_BYTES: such an event can't be kept",
            ),
            (
                0 < self.alert_memory_critical_mb < self.alert_memory_warning_mb,
                "ALERT_MEMORY_CRITICAL_MB is below ALERT_MEMORY_WARNING_MB",
            ),
            (
                0 < self.alert_error_critical_percent < self.alert_error_warning_percent,
                "ALERT_ERROR_CRITICAL_PERCENT is below ALERT_ERROR_WARNING_PERCENT",
            ),
            (
                0 < self.buffer_total_bytes < self.stream_buffer_bytes,
                "BUFFER_TOTAL_BYTES is smaller than STREAM_BUFFER_BYTES",
            ),
            (
                self.heartbeat_interval > 0
                and 0 < self.silence_threshold <= self.heartbeat_interval,
                "SILENCE_THRESHOLD must be over HEARTBEAT_INTERVAL, or clients reconnect for ever",
            ),
        ):
            if wrong:
                raise ValueError(message)
        return self

    def effective(self) -> dict[str, str]:
        """Every setting by its environment name, as text, secrets masked."""
        return {name.upper(): _as_text(getattr(self, name)) for name in type(self).model_fields}


def _as_text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, SecretStr):
        return "********"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(str(item) for item in value)
    if isinstance(value, float):
        return f"{value:g}"
    return str(value)


def default_text(name: str) -> str:
    """The default of a setting as the environment would write it; empty for none."""
    return _as_text(Settings.model_fields[name].default)
