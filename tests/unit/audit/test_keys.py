"""Keys in files, and the keyed hashes that they make."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import shutil
import stat
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.audit.keyfile import Wrapping
from gateway.audit.keys import GRACE_MS, Keys, destroyable_from, epoch_of
from gateway.audit.pseudonyms import (
    is_equal,
    query_hash,
    session_hash,
    subject_pseudonym,
    subject_scope,
    tenant_scope,
)
from gateway.errors import AuditError

KEY = b"k" * 32


def ms(year: int, month: int, day: int = 1) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp() * 1000)


OCTOBER, NOVEMBER, NEXT_YEAR = ms(2026, 10, 15), ms(2026, 11, 1), ms(2027, 1, 1)


def sha(message: bytes) -> bytes:
    return hmac.new(KEY, message, hashlib.sha256).digest()


def test_hashes_are_made_as_the_format_says() -> None:
    assert query_hash(KEY, "tenant:a", "Ünder") == sha(
        b"gw-audit/1 query\0tenant:a\0" + "Ünder".encode()
    )
    assert session_hash(KEY, "tenant:a", "c1") == sha(b"gw-audit/1 session\0tenant:a\0c1")
    assert subject_pseudonym(KEY, "https://issuer.example", "jane") == sha(
        b"gw-audit/1 subject\0https://issuer.example\0jane"
    )


def test_two_spellings_of_one_text_have_one_hash() -> None:
    scope = tenant_scope()
    assert query_hash(KEY, scope, "A\u030a") == query_hash(KEY, scope, "\u00c5")
    assert query_hash(KEY, scope, "A\u030a".encode()) != query_hash(KEY, scope, "\u00c5".encode())
    assert query_hash(KEY, scope, "\ud800") != query_hash(KEY, scope, "\ud801")


def test_equal_questions_of_two_people_look_different() -> None:
    jane, john = (subject_scope(subject_pseudonym(KEY, "", name)) for name in ("jane", "john"))
    assert query_hash(KEY, jane, "same") != query_hash(KEY, john, "same")
    assert query_hash(KEY, jane, "same") == query_hash(KEY, jane, "same")


def test_scope_can_not_reach_into_the_text() -> None:
    assert query_hash(KEY, "tenant:a", "b") != query_hash(KEY, "tenant:", "ab")
    with pytest.raises(AuditError) as caught:
        query_hash(KEY, "tenant:a\0b", "c")
    assert caught.value.code == "bad_scope"


def test_comparison_is_of_bytes() -> None:
    assert is_equal(KEY, b"k" * 32)
    assert not is_equal(KEY, b"l" * 32)


def test_each_month_and_each_year_has_its_key(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    october = keys.current("query", OCTOBER)
    november = keys.current("query", NOVEMBER)
    assert october.id.startswith("2026-10.")
    assert november.id.startswith("2026-11.")
    assert keys.current("query", OCTOBER + 1) == october
    year = keys.current("subject", OCTOBER)
    assert keys.current("subject", NOVEMBER) == year
    assert keys.current("subject", NEXT_YEAR) != year
    assert keys.current("sign", OCTOBER) == keys.current("sign", NEXT_YEAR)
    assert len({one.secret for one in keys.all("query")}) == 2
    assert [one.id for one in keys.all("query")] == [november.id, october.id]
    assert all(len(one.secret) == 32 for one in keys.all("query"))


def test_another_process_finds_the_same_key(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from gateway.audit.keys import Keys\n"
        f"print(Keys(pathlib.Path(sys.argv[1])).current('query', {OCTOBER}).id)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    ids = {process.communicate()[0].strip() for process in running}
    assert ids == {Keys(tmp_path).current("query", OCTOBER).id}
    assert len(Keys(tmp_path).all("query")) == 1


def test_only_the_owner_can_read_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    keys = Keys(folder)
    keys.current("sign", OCTOBER)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    (file,) = folder.glob("*.key")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    (info,) = keys.infos()
    assert info.is_private
    assert not info.is_wrapped
    file.chmod(0o640)
    assert not keys.infos()[0].is_private


def test_secret_is_never_shown(tmp_path: Path) -> None:
    key = Keys(tmp_path).current("query", OCTOBER)
    assert repr(key.secret)[2:-1] not in repr(key)
    assert not hasattr(Keys(tmp_path).infos()[0], "secret")


def test_rotation_makes_a_new_key_and_keeps_the_old(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    old = keys.current("query", OCTOBER)
    new = keys.rotate("query", OCTOBER)
    assert keys.current("query", OCTOBER) == new != old
    assert Keys(tmp_path).current("query", OCTOBER + 5) == new
    assert Keys(tmp_path).all("query") == [new, old]
    assert keys.get("query", old.id) == old


def test_old_and_new_signing_keys_sign_one_checkpoint(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    old = keys.signer("gw.example/1", OCTOBER).verifier
    keys.rotate("sign", OCTOBER)
    assert [one.verifier for one in keys.signers("gw.example/1")] == [
        keys.signer("gw.example/1", OCTOBER).verifier,
        old,
    ]


def test_destroyed_key_is_gone_from_memory_and_from_the_disk(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    doomed = keys.current("query", OCTOBER)
    (file,) = tmp_path.glob("*.key")
    link = tmp_path / "kept"
    os.link(file, link)  # sees what is left in the blocks
    before = link.read_bytes()
    keys.destroy("query", doomed.id)
    assert len(link.read_bytes()) == len(before)
    assert link.read_bytes() != before
    assert not list(tmp_path.glob("*.key*"))
    assert not list(tmp_path.glob(".*"))
    for ask in (keys.get, keys.destroy):
        with pytest.raises(AuditError) as caught:
            ask("query", doomed.id)
        assert caught.value.code == "no_key"
    assert keys.current("query", OCTOBER).secret != doomed.secret


def test_path_can_not_be_smuggled_in_as_an_id(tmp_path: Path) -> None:
    keys = Keys(tmp_path / "keys")
    keys.current("query", OCTOBER)
    for key_id in ("../x", "*", "2026-10.*", ""):
        with pytest.raises(AuditError) as caught:
            keys.get("query", key_id)
        assert caught.value.code == "no_key"


def test_what_a_crash_left_is_wiped_at_the_next_write(tmp_path: Path) -> None:
    keys = Keys(tmp_path)
    keys.current("query", OCTOBER)
    (file,) = tmp_path.glob("*.key")
    half_written = tmp_path / f".{file.name}.0123456789abcdef"
    half_destroyed = tmp_path / f".{file.name}.destroyed"
    for left in (half_written, half_destroyed):
        shutil.copy(file, left)
    assert len(Keys(tmp_path).all("query")) == 1
    Keys(tmp_path).rotate("subject", OCTOBER)
    assert not half_written.exists()
    assert not half_destroyed.exists()


def test_failed_write_leaves_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    keys = Keys(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="space"):
            keys.current("query", OCTOBER)
    assert not list(tmp_path.glob("*.key*"))
    assert not list(tmp_path.glob(".*"))
    assert keys.current("query", OCTOBER)


def test_wrapped_key_needs_its_kek(tmp_path: Path) -> None:
    kek = secrets.token_bytes(32)
    key = Keys(tmp_path, Wrapping([kek])).current("query", OCTOBER)
    (file,) = tmp_path.glob("*.key")
    assert Keys(tmp_path).infos()[0].is_wrapped
    assert Keys(tmp_path, Wrapping([kek])).get("query", key.id).secret == key.secret
    newer = Wrapping.from_text(f"{secrets.token_hex(32)},{kek.hex()}")
    assert Keys(tmp_path, newer).get("query", key.id).secret == key.secret
    for other in (Wrapping(), Wrapping([bytes(32)])):
        with pytest.raises(AuditError) as caught:
            Keys(tmp_path, other).current("query", OCTOBER)
        assert caught.value.code == "needs_kek"
    text = file.read_text()
    assert len(text) > 100


@pytest.mark.parametrize("text", ["abc", "00" * 31, "!" * 44, "AAAA"])
def test_what_is_no_kek_is_refused(text: str) -> None:
    with pytest.raises(AuditError) as caught:
        Wrapping.from_text(text)
    assert caught.value.code == "bad_kek"


def test_kek_may_be_hex_or_either_base64() -> None:
    for text in ("ff" * 32, "//8=" and "_" * 42 + "8", "/" * 42 + "8="):
        assert Wrapping.from_text(text)


@pytest.mark.parametrize("is_wrapped", [False, True])
def test_damaged_exchanged_or_renamed_file_is_refused(tmp_path: Path, is_wrapped: bool) -> None:
    wrapping = Wrapping([bytes(32)]) if is_wrapped else Wrapping()
    keys = Keys(tmp_path, wrapping)
    october, november = keys.current("query", OCTOBER), keys.current("query", NOVEMBER)
    file, other = (tmp_path / f"query-{key.id}.key" for key in (october, november))
    whole = file.read_text()
    start = whole.index('"key": "') + 8
    flipped = "A" if whole[start] != "A" else "B"
    for text in (
        "",
        "{}",
        "[]",
        "\xff",
        whole[:-10],
        whole[:start] + flipped + whole[start + 1 :],
        whole.replace("sluice-audit-key/1", "sluice-audit-key/2"),
        other.read_text(),
        other.read_text().replace(november.id, october.id),
    ):
        file.write_text(text)
        with pytest.raises(AuditError) as caught:
            Keys(tmp_path, wrapping).get("query", october.id)
        assert caught.value.code == "bad_key_file"


def test_key_may_be_destroyed_when_its_last_record_has_expired() -> None:
    day = 86_400
    assert (
        destroyable_from("2026-10.01234567", 90 * day) == ms(2026, 11) + 90 * day * 1000 + GRACE_MS
    )
    assert destroyable_from("2026-12.01234567", day) == ms(2027, 1) + day * 1000 + GRACE_MS
    assert destroyable_from("2026.01234567", day) == ms(2027, 1) + day * 1000 + GRACE_MS
    with pytest.raises(AuditError) as caught:
        destroyable_from("01234567", day)
    assert caught.value.code == "no_epoch"


def test_epochs_are_those_of_utc() -> None:
    assert epoch_of("query", NEXT_YEAR - 1) == "2026-12"
    assert epoch_of("query", NEXT_YEAR) == "2027-01"
    assert epoch_of("subject", NEXT_YEAR) == "2027"
    assert epoch_of("sign", NEXT_YEAR) == ""
