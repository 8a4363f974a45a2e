"""The settings: what they take, what they refuse, and how they are shown."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import ValidationError

from gateway.environment import OUR_PREFIXES, load_settings
from gateway.errors import SettingsError
from gateway.settings import Settings

MISSION_DEFAULTS = {
    "HEARTBEAT_INTERVAL": "5",
    "STREAM_MAX_SECONDS": "60",
    "SILENCE_THRESHOLD": "15",
    "CHUNK_DELAY_MS": "0",
    "PERFORMANCE_MODE": "realtime",
    "ENABLE_SSE_STREAMING": "false",
    "SSE_STREAMING_ROLLOUT_PERCENT": "100",
    "RATE_LIMIT": "20/minute",
    "MAX_STREAM_SESSIONS": "100",
    "SHUTDOWN_GRACE_SECONDS": "10",
    "PROXY_PASSTHROUGH": "true",
    "HOST": "127.0.0.1",
    "PORT": "8080",
    "UPSTREAM_DIALECT": "openai",
    "AUTH_MODE": "none",
    "STREAM_IDS": "true",
    "COMMIT_DELAY_MS": "2000",
    "DETACH_GRACE_SECONDS": "120",
    "STREAM_BUFFER_BYTES": "1048576",
    "EVENT_MAX_BYTES": "1048576",
    "BUFFER_TOTAL_BYTES": "536870912",
    "UPSTREAM_CONNECT_SECONDS": "5",
    "UPSTREAM_FIRST_TOKEN_SECONDS": "30",
    "UPSTREAM_IDLE_SECONDS": "30",
    "WRITE_STALL_SECONDS": "30",
    "PROVIDER_STREAM_MAX_SECONDS": "0",
    "STREAM_MAX_PER_OWNER": "0",
    "REQUEST_MAX_BYTES": "33554432",
    "BACKPRESSURE_POLICY": "pause",
    "LOG_LEVEL": "info",
    "LOG_FORMAT": "json",
    "DATA_DIR": "data",
}
SWITCHED_OFF_BY_ZERO = (
    "HEARTBEAT_INTERVAL",
    "STREAM_MAX_SECONDS",
    "SILENCE_THRESHOLD",
    "PROVIDER_STREAM_MAX_SECONDS",
    "UPSTREAM_CONNECT_SECONDS",
    "UPSTREAM_FIRST_TOKEN_SECONDS",
    "UPSTREAM_IDLE_SECONDS",
    "WRITE_STALL_SECONDS",
    "MAX_STREAM_SESSIONS",
    "STREAM_MAX_PER_OWNER",
    "RATE_LIMIT",
    "BUFFER_TOTAL_BYTES",
    "REQUEST_BODY_SECONDS",
    "COMMIT_DELAY_MS",
)
BAD = (
    ("PORT", "http"),
    ("PORT", "65536"),
    ("PORT", "-1"),
    ("HEARTBEAT_INTERVAL", "-1"),
    ("HEARTBEAT_INTERVAL", "soon"),
    ("STREAM_MAX_SECONDS", "-0.5"),
    ("MAX_STREAM_SESSIONS", "1.5"),
    ("STREAM_BUFFER_BYTES", "0"),
    ("EVENT_MAX_BYTES", "0"),
    ("REQUEST_MAX_BYTES", "0"),
    ("SSE_STREAMING_ROLLOUT_PERCENT", "101"),
    ("SSE_STREAMING_ROLLOUT_PERCENT", "-1"),
    ("ENABLE_SSE_STREAMING", "perhaps"),
    ("PERFORMANCE_MODE", "turbo"),
    ("BACKPRESSURE_POLICY", "drop"),
    ("UPSTREAM_DIALECT", "gopher"),
    ("AUTH_MODE", "password"),
    ("LOG_LEVEL", "loud"),
    ("LOG_FORMAT", "xml"),
    ("RATE_LIMIT", "many"),
    ("RATE_LIMIT", "20 per fortnight"),
    ("UPSTREAM_URL", "backend"),
    ("UPSTREAM_URL", "ftp://backend"),
    ("UPSTREAM_URL", "http://"),
    ("UPSTREAM_URL", "http://backend:port"),
    ("UPSTREAM_URL", "http://backend:99999"),
    ("UPSTREAM_URL", "http://user:secret@backend"),
    ("UPSTREAM_URL", "http://backend?a=b"),
    ("UPSTREAM_URL", "http://backend#a"),
    ("JWT_JWKS_URL", "file:///keys"),
    ("TRUSTED_PROXIES", "10.0.0.0/33"),
    ("TRUSTED_PROXIES", "10.0.0.1/8"),
    ("TRUSTED_PROXIES", "proxy.example"),
    ("ALLOWED_ORIGINS", "*"),
    ("ALLOWED_ORIGINS", "app.example.com"),
    ("ALLOWED_ORIGINS", "https://app.example.com/"),
    ("ALLOWED_ORIGINS", "https://app.example.com/path"),
    ("CHAT_STREAM_ALIASES", "chat"),
    ("CHAT_STREAM_ALIASES", "/chat?x"),
    ("CHAT_STREAM_ALIASES", "/chat/{id}"),
)
CONTRADICTIONS = (
    ({"TLS_CERT": "a.pem"}, "TLS_CERT"),
    ({"TLS_KEY": "a.pem"}, "TLS_KEY"),
    ({"AUTH_MODE": "api_key"}, "API_KEYS_FILE"),
    ({"AUTH_MODE": "jwt"}, "JWT_JWKS_URL"),
    (
        {
            "AUTH_MODE": "jwt",
            "JWT_JWKS_URL": "https://issuer.example/jwks",
            "JWT_PUBLIC_KEY_FILE": "key.pem",
        },
        "JWT_PUBLIC_KEY_FILE",
    ),
    ({"EVENT_MAX_BYTES": "2", "STREAM_BUFFER_BYTES": "1"}, "EVENT_MAX_BYTES"),
    ({"BUFFER_TOTAL_BYTES": "5"}, "BUFFER_TOTAL_BYTES"),
    ({"SILENCE_THRESHOLD": "5", "HEARTBEAT_INTERVAL": "5"}, "SILENCE_THRESHOLD"),
    ({"UPSTREAM_URL": "http://a", "RAG_BACKEND_URL": "http://b"}, "RAG_BACKEND_URL"),
)


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the machine's own reaches a test."""
    known = {name.upper() for name in Settings.model_fields} | {"RAG_BACKEND_URL", "ENV_FILE"}
    for name in list(os.environ):
        if name.upper() in known or name.upper().startswith(OUR_PREFIXES):
            monkeypatch.delenv(name)


def load(monkeypatch: pytest.MonkeyPatch, values: dict[str, str]) -> Settings:
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def test_defaults_are_the_documented_ones() -> None:
    effective = load_settings().effective()
    assert {name: effective[name] for name in MISSION_DEFAULTS} == MISSION_DEFAULTS


def test_every_setting_is_described() -> None:
    for name, field in Settings.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


@pytest.mark.parametrize("name", SWITCHED_OFF_BY_ZERO)
def test_zero_switches_a_limit_off(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    settings = load(monkeypatch, {name: "0"})
    assert not getattr(settings, name.lower())


def test_empty_value_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, {"PORT": "", "UPSTREAM_URL": "", "AUTH_MODE": ""})
    assert settings == Settings()


@pytest.mark.parametrize(("name", "value"), BAD)
def test_bad_value_is_refused_by_one_line_with_its_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        load(monkeypatch, {name: value})
    assert str(raised.value).startswith(f"{name}: ")
    assert "\n" not in str(raised.value)
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(("values", "name"), CONTRADICTIONS)
def test_contradiction_is_refused_by_one_line(
    monkeypatch: pytest.MonkeyPatch, values: dict[str, str], name: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        load(monkeypatch, values)
    assert name in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("HEARTBEAT_INTERVALL", "HEARTBEAT_INTERVAL"),
        ("STREAM_MAX_SECOND", "STREAM_MAX_SECONDS"),
        ("UPSTREAM_URI", "UPSTREAM_URL"),
        ("RATE_LIMITS", "RATE_LIMIT"),
        ("ENABLE_SSE_STREAMIN", "ENABLE_SSE_STREAMING"),
        ("stream_max_second", "STREAM_MAX_SECONDS"),
    ],
)
def test_unknown_name_is_refused_with_what_may_have_been_meant(
    monkeypatch: pytest.MonkeyPatch, name: str, meant: str
) -> None:
    with pytest.raises(SettingsError) as raised:
        load(monkeypatch, {name: "1"})
    assert str(raised.value) == f"{name}: there is no such setting; did you mean {meant}?"


def test_every_problem_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError) as raised:
        load(monkeypatch, {"PORT": "x", "LOG_LEVEL": "y", "SLUICE_FOO": "z"})
    lines = str(raised.value).splitlines()
    assert sorted(line.partition(":")[0] for line in lines) == ["LOG_LEVEL", "PORT", "SLUICE_FOO"]


def test_other_programs_variables_are_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    load(monkeypatch, {"PATH_TO_X": "1", "HOSTNAME": "h", "MAX_FOO": "1", "JWTISH": "1"})


def test_alias_names_the_backend_too(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, {"RAG_BACKEND_URL": "http://backend:9/base/"})
    assert settings.upstream_url == "http://backend:9/base"


def test_both_names_may_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    both = {"UPSTREAM_URL": "http://a", "RAG_BACKEND_URL": "http://a"}
    assert load(monkeypatch, both).upstream_url == "http://a"


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(
        monkeypatch,
        {
            "ALLOWED_ORIGINS": "https://a.example, http://b.example:8080,",
            "TRUSTED_PROXIES": "10.0.0.0/8,2001:db8::/32, 127.0.0.1",
            "CHAT_STREAM_ALIASES": "/api/v2/bali-zero/chat-stream,/api/stream-message",
        },
    )
    assert settings.allowed_origins == ("https://a.example", "http://b.example:8080")
    assert [str(network) for network in settings.trusted_proxies] == [
        "10.0.0.0/8",
        "2001:db8::/32",
        "127.0.0.1/32",
    ]
    assert settings.chat_stream_aliases == ("/api/v2/bali-zero/chat-stream", "/api/stream-message")


def test_file_gives_settings_and_the_environment_wins(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "gateway.env"
    file.write_text("# ours\nPORT=1234\nLOG_LEVEL=debug\nexport HOST='0.0.0.0'\n")
    settings = load(monkeypatch, {"ENV_FILE": str(file), "PORT": "4321"})
    assert (settings.port, settings.log_level, settings.host) == (4321, "debug", "0.0.0.0")


def test_unknown_name_in_the_file_is_refused_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "gateway.env"
    file.write_text("STREAM_MAX_SECOND=1\nUNRELATED=1\n")
    with pytest.raises(SettingsError, match="did you mean STREAM_MAX_SECONDS"):
        load(monkeypatch, {"ENV_FILE": str(file)})


def test_file_that_is_not_there_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^ENV_FILE: no file at "):
        load(monkeypatch, {"ENV_FILE": str(tmp_path / "none")})


def test_secrets_are_masked_wherever_settings_are_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = load(monkeypatch, {"UPSTREAM_API_KEY": "sk-canary"})
    assert settings.effective()["UPSTREAM_API_KEY"] == "********"
    for text in (repr(settings), str(settings), settings.model_dump_json()):
        assert "canary" not in text


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().port = 1  # type: ignore[misc]


#: Names that other programmes have too: a slip in one of them can't be told from theirs.
ANYBODYS = {
    *("HOST", "PORT", "UNIX_SOCKET", "TLS_CERT", "TLS_KEY", "ALLOWED_HOSTS", "ALLOWED_ORIGINS"),
    *("KEEPALIVE_SECONDS", "SHUTDOWN_GRACE_SECONDS", "SESSION_TIMEOUT_MS", "CLEANUP_INTERVAL_MS"),
    *("MAX_STREAM_SESSIONS", "AUTH_MODE", "TRUSTED_PROXIES", "DATABASE_URL", "DATA_DIR"),
    *("LOG_LEVEL", "LOG_FORMAT"),
}


def test_slip_in_any_other_name_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {name.upper() for name in Settings.model_fields} - ANYBODYS
    for name in ours:
        with monkeypatch.context() as patch, pytest.raises(SettingsError, match=f"{name}X: there"):
            load(patch, {f"{name}X": "1"})
