"""What this process is made of and told, as it may be shown to somebody who helps."""

from __future__ import annotations

import platform
from importlib import metadata

import gateway
from gateway.settings import Settings

_PACKAGES = (
    *("aiohttp", "aiohttp-sse", "alembic", "asyncpg", "cryptography", "limits"),
    *("openfeature-sdk", "opentelemetry-sdk", "orjson", "prometheus-client", "pydantic-settings"),
    *("PyJWT", "SQLAlchemy", "strawberry-graphql", "uvloop", "zstandard"),
)


def versions() -> dict[str, str | None]:
    """The gateway, Python, the system, and each package that matters; None if it isn't there."""
    return {
        "sluice": gateway.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        **{name: _installed(name) for name in _PACKAGES},
    }


def _installed(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def settings_to_share(settings: Settings) -> dict[str, str]:
    """Every setting, without the secrets, and without the command that might hold one."""
    shown = settings.effective()
    if shown["AUDIT_CHECKPOINT_COMMAND"]:
        shown["AUDIT_CHECKPOINT_COMMAND"] = "********"
    return shown
