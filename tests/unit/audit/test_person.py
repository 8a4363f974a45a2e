"""How a person is named, and what the journal and the page make of them."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import pytest

from gateway.audit.canonical import Object
from gateway.audit.journal import Erased, ErasedStream, Erasures, Journal
from gateway.audit.keyfile import Key
from gateway.audit.page import page
from gateway.audit.person import Person
from gateway.errors import AuditError

KEYS = [Key("subject", f"{year}.00000000", 0, bytes([year % 256]) * 32) for year in (2025, 2026)]


@pytest.mark.parametrize(
    ("text", "owners", "email"),
    [
        ("sub:ada", ("sub:ada",), None),
        ("user:ada", ("user:ada",), None),
        (" ada ", ("sub:ada", "user:ada"), None),
        ("Ada@Example.org", ("sub:Ada@Example.org", "user:Ada@Example.org"), b"ada@example.org"),
        ("sub:ada@example.org", ("sub:ada@example.org",), None),
        ("urn:x:ada", ("sub:urn:x:ada", "user:urn:x:ada"), None),
    ],
)
def test_name_with_a_prefix_is_one_owner_and_a_bare_one_two(
    text: str, owners: tuple[str, ...], email: bytes | None
) -> None:
    assert Person.parse(text) == Person(owners, email)


def test_address_is_who_came_from_there() -> None:
    assert Person.parse("addr:2001:DB8::7") == Person(("addr:2001:db8::7",), address=b"2001:db8::7")


@pytest.mark.parametrize("text", ["", "  ", "sub:", "a\nb", "x" * 300, "addr:ada"])
def test_what_names_nobody_is_refused(text: str) -> None:
    with pytest.raises(AuditError) as caught:
        Person.parse(text)
    assert caught.value.code == "bad_person"


def test_person_has_a_pseudonym_for_each_owner_and_key() -> None:
    assert len({*Person.parse("ada").pseudonyms(KEYS)}) == 4
    assert {*Person.parse("sub:ada").pseudonyms(KEYS)} < {*Person.parse("ada").pseudonyms(KEYS)}


def an_entry(day: int, seq: int) -> Erased:
    return Erased(day, "gw/one", seq, "AAAAAAAAAAAA", ("email", "subject"))


def test_journal_keeps_what_is_young_enough_in_no_order_of_its_own(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "erasures.jsonl")
    assert journal.stamp() is None
    assert journal.read() == Erasures()
    first = Erasures(frozenset({an_entry(5, 9), an_entry(3, 1)}), frozenset({ErasedStream(5, "s")}))
    journal.add(first, since_day=0)
    assert journal.read() == first
    before = journal.stamp()
    journal.add(Erasures(frozenset({an_entry(5, 2)})), since_day=4)
    assert journal.stamp() != before
    assert journal.read().records == {an_entry(5, 2), an_entry(5, 9)}
    lines = (tmp_path / "erasures.jsonl").read_text().splitlines()
    assert [line.partition('"seq": ')[2][:1] for line in lines] == ["", "2", "9", ""]
    assert (tmp_path / "erasures.jsonl").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize(
    "line",
    ["", "x", "[]", '{"day": 1}', '{"day": 1, "log": "a", "seq": 1, "leaf": "b", "fields": 3}'],
)
def test_damaged_journal_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "erasures.jsonl"
    path.write_text('{"format": "sluice-audit-erasures/1"}\n' + line + "\n")
    with pytest.raises(AuditError) as caught:
        Journal(path).read()
    assert caught.value.code == "bad_journal"


class _Tags(HTMLParser):
    """Which tags there are, and what they would load."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.loads += [str(value) for name, value in attrs if name in ("src", "href")]


def test_page_holds_what_was_said_as_text_and_loads_nothing() -> None:
    answer: Object = {
        "created_at": "2026-01-01",
        "reason": "completed",
        "text": "<script>x</script>",
    }
    record: Object = {
        "type": "auth.login",
        "ts": 0,
        "purpose": "To show.",
        "until_ms": 86_400_000,
        "values": {"email": "<img src=x>@example.org"},
        "proof": {"log": "gw"},
    }
    made = page({"format": "f", "made_ms": 0, "keys": [], "records": [record], "answers": [answer]})
    tags = _Tags()
    tags.feed(made)
    assert tags.tags.isdisjoint({"script", "img", "link", "iframe"})
    assert tags.loads == []
    assert "1970-01-02 00:00:00 UTC" in made
    assert "&lt;script&gt;" in made
