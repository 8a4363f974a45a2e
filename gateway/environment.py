"""Reads the settings from the environment, and says what is wrong there.

This is the only module that reads the environment. A value may also stand in the file that
`ENV_FILE` names; the environment wins.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values
from pydantic import ValidationError

from gateway.errors import SettingsError
from gateway.settings import Settings

#: A name that begins like this and isn't a setting is a typing error, not somebody else's variable.
OUR_PREFIXES = (
    "ADMIN_",
    "ALERT_ERROR_",
    "ALERT_MEMORY_",
    "ALERT_MIN_",
    "ALERT_WINDOW_",
    "ANALYTICS_MAX_",
    "API_KEYS_",
    "AUDIT_",
    "BACKPRESSURE_",
    "BREAKER_",
    "BUFFER_TOTAL_",
    "CHAT_STREAM_",
    "CHUNK_DELAY",
    "COMMIT_DELAY",
    "CONNECTION_MAX_",
    "DETACH_GRACE",
    "ENABLE_SSE_",
    "EVENT_MAX_",
    "HEARTBEAT_",
    "JWT_",
    "OTLP_TRACES_",
    "PARTIAL_ENCRYPTION_",
    "PERFORMANCE_",
    "PROVIDER_STREAM_",
    "PROXY_PASSTHROUGH",
    "RAG_BACKEND_",
    "RATE_LIMIT",
    "REQUEST_",
    "RESUME_",
    "SILENCE_",
    "SLUICE_",
    "SSE_STREAMING_",
    "STREAM_",
    "UPSTREAM_",
    "WRITE_STALL",
)


def load_settings() -> Settings:
    """The settings of this process, from its environment and the file that `ENV_FILE` names.

    Raises:
        SettingsError: with one clear line for each thing that is wrong.
    """
    names = dict(os.environ)
    env_file = os.environ.get("ENV_FILE") or None
    if env_file is not None:
        if not Path(env_file).is_file():
            raise SettingsError(f"ENV_FILE: no file at {env_file}")
        names = {**dotenv_values(env_file), **names}  # type: ignore[dict-item]
    problems = _unknown_names(names) + _conflicting_aliases(names)
    try:
        settings = Settings(_env_file=env_file)  # type: ignore[call-arg]
    except ValidationError as error:
        problems += [_explain(item["loc"], item["msg"]) for item in error.errors()]
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def _unknown_names(names: Mapping[str, str]) -> list[str]:
    known = {name.upper() for name in Settings.model_fields} | {"RAG_BACKEND_URL", "ENV_FILE"}
    problems = []
    for name in sorted(names):
        if name.upper() in known or not name.upper().startswith(OUR_PREFIXES):
            continue
        near = difflib.get_close_matches(name.upper(), known, n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        problems.append(f"{name}: there is no such setting{hint}")
    return problems


def _conflicting_aliases(names: Mapping[str, str]) -> list[str]:
    urls = {names[name] for name in ("UPSTREAM_URL", "RAG_BACKEND_URL") if names.get(name)}
    if len(urls) < 2:
        return []
    return ["UPSTREAM_URL and RAG_BACKEND_URL name the same thing but differ"]


def _explain(location: tuple[int | str, ...], message: str) -> str:
    text = message.removeprefix("Value error, ")
    if not location:
        return text
    return f"{str(location[0]).upper()}: {text[:1].lower()}{text[1:]}"
