"""API keys, in a real file."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import SettingsError, Unauthorized
from gateway.keys import KeyRing, pepper_path
from gateway.tokens import ApiKeyAuthenticator


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "keys.jsonl"


@pytest.fixture
def pepper(tmp_path: Path) -> Path:
    return pepper_path(tmp_path)


@pytest.fixture
def ring(file: Path, pepper: Path) -> KeyRing:
    return KeyRing.load(file, pepper)


def test_key_that_was_added_proves_its_owner(ring: KeyRing, file: Path, pepper: Path) -> None:
    key = ring.add("alice")
    assert re.fullmatch(r"sk-sluice-[a-z0-9]{12}-[A-Za-z0-9]{40}", key)
    assert ring.verify(key) == "alice"
    assert KeyRing.load(file, pepper).verify(key) == "alice"


def test_no_two_keys_are_alike(ring: KeyRing) -> None:
    keys = {ring.add("alice") for _ in range(20)}
    assert len(keys) == len(ring.entries()) == 20


@pytest.mark.parametrize(
    "mutate", [str.upper, str.lower, lambda key: key[:-1], lambda key: key + "a"]
)
def test_key_that_is_nearly_right_is_wrong(ring: KeyRing, mutate: object) -> None:
    key = ring.add("alice")
    assert callable(mutate)
    assert ring.verify(mutate(key)) is None


def test_secret_of_another_key_is_wrong(ring: KeyRing) -> None:
    one, other = ring.add("alice"), ring.add("bob")
    assert ring.verify(one[:23] + other[23:]) is None


@given(st.text() | st.from_regex(r"sk-sluice-[a-z0-9]{12}-[A-Za-z0-9]{40}", fullmatch=True))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_was_never_given_out_is_wrong(ring: KeyRing, presented: str) -> None:
    assert ring.verify(presented) is None


def test_revoked_key_is_wrong_and_stays_listed(ring: KeyRing) -> None:
    key = ring.add("alice")
    entry = ring.entries()[0]
    assert ring.revoke(entry.id)
    assert ring.verify(key) is None
    revoked_at = ring.entries()[0].revoked_at
    assert revoked_at
    assert ring.revoke(entry.id)
    assert ring.entries()[0].revoked_at == revoked_at
    assert not ring.revoke("nosuchkey000")


def test_neither_file_holds_a_key_and_only_the_user_may_read_them(
    ring: KeyRing, file: Path, pepper: Path
) -> None:
    key = ring.add("alice")
    secret = key.rpartition("-")[2].encode()
    for path in (file, pepper):
        assert secret not in path.read_bytes()
        assert path.stat().st_mode & 0o777 == 0o600
    assert len(pepper.read_bytes()) == 32
    assert not list(file.parent.glob(".*"))


def test_hash_is_worth_nothing_under_another_secret(
    ring: KeyRing, file: Path, pepper: Path
) -> None:
    key = ring.add("alice")
    pepper.write_bytes(bytes(32))
    assert KeyRing.load(file, pepper).verify(key) is None


def test_missing_file_is_an_empty_ring(ring: KeyRing) -> None:
    assert ring.entries() == []
    assert ring.verify("sk-sluice-aaaaaaaaaaaa-" + "a" * 40) is None


def test_link_to_the_file_stays_a_link(file: Path, pepper: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(file)
    key = KeyRing.load(link, pepper).add("alice")
    assert link.is_symlink()
    assert KeyRing.load(file, pepper).verify(key) == "alice"


GOOD = {"id": "a" * 12, "hash": "0" * 64, "owner": "a", "created_at": "2026-01-01"}


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "null",
        '"text"',
        "[" * 100_000,
        json.dumps({**GOOD, "id": "short"}),
        json.dumps({**GOOD, "id": 7}),
        json.dumps({**GOOD, "hash": "0" * 63}),
        json.dumps({**GOOD, "owner": ""}),
        json.dumps({**GOOD, "owner": "a\nb"}),
        json.dumps({**GOOD, "owner": None}),
        json.dumps({**GOOD, "revoked_at": False}),
        json.dumps({**GOOD, "revoked_at": 1}),
        json.dumps({**GOOD, "extra": 1}),
        json.dumps({"id": "a" * 12}),
    ],
)
def test_malformed_line_is_named(ring: KeyRing, file: Path, pepper: Path, line: str) -> None:
    ring.add("alice")
    file.write_text(f"{file.read_text()}\n{line}\n")
    with pytest.raises(SettingsError, match="line 3"):
        KeyRing.load(file, pepper)


def test_id_that_is_there_twice_is_named(ring: KeyRing, file: Path, pepper: Path) -> None:
    ring.add("alice")
    file.write_text(file.read_text() * 2)
    with pytest.raises(SettingsError, match=r"line 2: the id .* is there twice"):
        KeyRing.load(file, pepper)


def test_files_that_cant_be_used_are_named(ring: KeyRing, file: Path, pepper: Path) -> None:
    ring.add("alice")
    pepper.write_bytes(b"short")
    with pytest.raises(SettingsError, match="must hold 32 bytes"):
        KeyRing.load(file, pepper)
    pepper.unlink()
    with pytest.raises(SettingsError, match="is missing"):
        KeyRing.load(file, pepper)
    pepper.mkdir()
    with pytest.raises(SettingsError, match="directory"):
        KeyRing.load(file, pepper)
    file.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="UTF-8"):
        KeyRing.load(file, pepper)
    file.unlink()
    file.mkdir()
    with pytest.raises(SettingsError, match="directory"):
        KeyRing.load(file, pepper)


@pytest.mark.parametrize("owner", ["", " ", " a", "a\nb", "x" * 257])
def test_owner_that_isnt_a_name_gets_no_key(ring: KeyRing, owner: str) -> None:
    with pytest.raises(ValueError, match="owner"):
        ring.add(owner)
    assert ring.entries() == []


def test_processes_that_add_at_once_dont_lose_a_key(file: Path, pepper: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from gateway.keys import KeyRing\n"
        "ring = KeyRing.load(*map(Path, sys.argv[1:]))\n"
        "for _ in range(8): print(ring.add('alice'))"
    )
    adding = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(file), str(pepper)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    keys = [key for process in adding for key in process.communicate()[0].split()]
    ring = KeyRing.load(file, pepper)
    assert len(keys) == len(ring.entries()) == 24
    assert all(ring.verify(key) == "alice" for key in keys)


async def test_key_revoked_by_another_process_stops_working_within_a_second(
    ring: KeyRing, file: Path, pepper: Path
) -> None:
    key = ring.add("alice")
    clock = Clock()
    authenticator = ApiKeyAuthenticator(KeyRing.load(file, pepper, clock))
    assert await authenticator.authenticate(key) == "alice"
    ring.revoke(ring.entries()[0].id)
    clock.now += 0.9
    assert await authenticator.authenticate(key) == "alice"
    clock.now += 0.1
    with pytest.raises(Unauthorized) as caught:
        await authenticator.authenticate(key)
    assert caught.value.code == "invalid_api_key"
    await authenticator.close()


async def test_first_key_works_without_a_restart(file: Path, pepper: Path) -> None:
    clock = Clock()
    authenticator = ApiKeyAuthenticator(KeyRing.load(file, pepper, clock))
    key = KeyRing.load(file, pepper).add("alice")
    clock.now += 1
    assert await authenticator.authenticate(key) == "alice"


def test_deleted_file_ends_its_keys(ring: KeyRing, file: Path) -> None:
    key = ring.add("alice")
    file.unlink()
    ring.refresh()
    assert ring.verify(key) is None


def test_file_that_breaks_leaves_the_known_keys_and_is_logged_once(
    ring: KeyRing, file: Path, pepper: Path, caplog: pytest.LogCaptureFixture
) -> None:
    key = ring.add("alice")
    reader = KeyRing.load(file, pepper)
    good = file.read_text()
    file.write_text("{")
    for _ in range(3):
        reader.refresh()
        assert reader.verify(key) == "alice"
    assert [record.message for record in caplog.records] == ["keys.unreadable"]
    file.write_text(good + "\n")
    ring.revoke(ring.entries()[0].id)
    reader.refresh()
    assert reader.verify(key) is None


async def test_missing_credential_has_its_own_code(ring: KeyRing) -> None:
    with pytest.raises(Unauthorized) as caught:
        await ApiKeyAuthenticator(ring).authenticate(None)
    assert caught.value.code == "missing_credential"


def test_file_is_looked_at_by_one_caller_a_second(file: Path, pepper: Path) -> None:
    clock = Clock()
    ring = KeyRing.load(file, pepper, clock)
    claims = []
    for _ in range(30):
        clock.now += 0.25
        claims += [ring.claim_refresh(), ring.claim_refresh()]
    assert sum(claims) == 7
