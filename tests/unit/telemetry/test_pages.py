"""Lines in two files: bounded, whole, and readable while they are written."""

from __future__ import annotations

from pathlib import Path

from gateway.telemetry.pages import Pages


def line(number: int) -> bytes:
    return b'{"number":%06d}\n' % number


def read(pages: Pages) -> bytes:
    return b"".join(pages.read())


def test_nothing_was_written_yet(tmp_path: Path) -> None:
    assert read(Pages(tmp_path / "none", "lines", 1000)) == b""


def test_lines_come_back_in_their_order(tmp_path: Path) -> None:
    pages = Pages(tmp_path / "new", "lines", 10_000)
    for number in range(10):
        pages.append(line(number))
    assert read(pages) == b"".join(map(line, range(10)))


def test_oldest_lines_go_and_no_more_is_kept_than_may_be(tmp_path: Path) -> None:
    pages = Pages(tmp_path, "lines", 1000)
    for number in range(1000):
        pages.append(line(number))
        kept = sum(path.stat().st_size for path in tmp_path.iterdir())
        assert kept <= 1000 + 2 * len(line(0))
    numbers = [int(one[10:16]) for one in read(pages).splitlines()]
    assert numbers == list(range(numbers[0], 1000))
    assert len(numbers) >= 25


def test_line_that_a_crash_cut_off_is_left_out_and_spoils_no_other(tmp_path: Path) -> None:
    pages = Pages(tmp_path, "lines", 1000)
    pages.append(line(1))
    path = tmp_path / "lines.ndjson"
    path.write_bytes(path.read_bytes() + line(2)[:9])
    assert read(pages) == line(1)
    pages.append(line(3))
    assert read(pages) == line(1) + line(3)


def test_reader_loses_no_line_when_the_file_is_put_aside(tmp_path: Path) -> None:
    pages = Pages(tmp_path, "lines", 100)
    pages.append(line(1))
    pieces = pages.read()
    assert next(pieces) == line(1)
    for number in range(2, 8):
        pages.append(line(number))
    assert b"".join(pieces) == line(2) + line(3)  # all that came before the file was full


def test_only_its_owner_may_read_the_files(tmp_path: Path) -> None:
    Pages(tmp_path, "lines", 1000).append(line(1))
    assert (tmp_path / "lines.ndjson").stat().st_mode & 0o077 == 0
