"""Every error that a client, an operator or another module can see.

    GatewayError
    ├─ BadRequest              400 and its relatives: the caller can mend it
    │   └─ BadFraming          the HTTP itself is at fault: the connection is closed too
    ├─ Unauthorized            401
    ├─ Forbidden               403
    ├─ NotFound                404
    ├─ TooManyRequests         429
    ├─ Unavailable             503: this gateway can't take it now
    └─ UpstreamError           the backend failed; its code is the stream's ending
    SettingsError              the process can't start
    AuditError                 a record, proof, note or key of the audit log isn't what it must be

An error knows its HTTP status and a stable code, which docs/errors.md lists. How it looks on the
wire is the dialect's business (`gateway.sse.dialects`).
"""

from __future__ import annotations


class GatewayError(Exception):
    """An answer that isn't the one asked for.

    `message` is a fixed text: it never quotes what the client or the backend sent, beyond a
    parameter's name. `retry_after_s` becomes `Retry-After`, where a retry can help.
    """

    status = 500
    code = "internal_error"
    type = "api_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.code
        self.status = status or self.status
        self.param = param
        self.retry_after_s = retry_after_s


class BadRequest(GatewayError):
    status = 400
    code = "bad_request"
    type = "invalid_request_error"


class BadFraming(BadRequest):
    """Not trusted to say where the next request begins, so there is none on this connection."""

    code = "bad_http"


class Unauthorized(GatewayError):
    status = 401
    code = "unauthorized"
    type = "authentication_error"


class Forbidden(GatewayError):
    status = 403
    code = "forbidden"
    type = "permission_error"


class NotFound(GatewayError):
    status = 404
    code = "not_found"
    type = "not_found_error"


class TooManyRequests(GatewayError):
    status = 429
    code = "rate_limited"
    type = "rate_limit_error"


class Unavailable(GatewayError):
    status = 503
    code = "unavailable"
    type = "overloaded_error"


class UpstreamError(GatewayError):
    """The backend refused, broke off or kept silent.

    `code` is one of the `ERROR` endings of `gateway.stream.model`. `retryable` tells a client
    whether the same question may succeed later.
    """

    status = 502
    code = "upstream_error"
    type = "upstream_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        status: int | None = None,
        retry_after_s: float | None = None,
        retryable: bool = True,
    ) -> None:
        super().__init__(message, code=code, status=status, retry_after_s=retry_after_s)
        self.retryable = retryable


class SettingsError(Exception):
    """One or more settings are missing, unknown, malformed or contradict each other."""


class AuditError(Exception):
    """Something of the audit log isn't what it must be; no client ever sees it.

    `code` is stable, docs/audit-format.md lists them all. The message never quotes a value.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
