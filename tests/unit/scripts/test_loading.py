"""The parts of the load script that need no socket."""

from __future__ import annotations

import re
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scripts.loading import others, process
from scripts.loading.backend import chunk, event, script
from scripts.loading.compare import Comparison, Measurement, add_differences, growth, ratios
from scripts.loading.dechunk import Chunked, Sized, body_of
from scripts.loading.meter import limits
from scripts.loading.options import BadOptions, load, parser
from scripts.loading.peers import KNOWN, peer
from scripts.loading.plots import bars, percentile_curve
from scripts.loading.scenarios import SCENARIOS
from scripts.loading.tally import quantile, summary
from scripts.loading.targets import STAMP, Target


def test_percentiles_are_values_that_were_seen() -> None:
    series = array("q", range(1000, 0, -1))
    found = summary(series, 1.0)
    assert found == {
        "count": 1000,
        "mean": 500.5,
        "p50": 500,
        "p95": 950,
        "p99": 990,
        "p99.9": 999,
        "max": 1000,
    }


def test_a_series_of_one_has_it_everywhere_and_none_has_nothing() -> None:
    found = summary([7_000_000], 1e6)
    assert found is not None
    assert {found[key] for key in ("mean", "p50", "p99.9", "max")} == {7.0}
    assert summary([], 1.0) is None


@given(st.lists(st.integers(0, 10**9), min_size=1), st.sampled_from([0.5, 0.95, 0.99, 0.999]))
def test_at_least_its_share_lies_at_or_below_a_quantile(values: list[int], share: float) -> None:
    ordered = sorted(values)
    found = quantile(ordered, share)
    assert sum(value <= found for value in ordered) >= share * len(ordered) - 1e-6
    assert sum(value < found for value in ordered) < share * len(ordered) + 1e-6


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.data())
def test_chunks_come_out_whole_wherever_they_were_cut(
    pieces: list[bytes], data: st.DataObject
) -> None:
    wire = b"".join(map(chunk, pieces)) + b"0\r\n\r\n"
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=6)))
    body, decoder = b"", Chunked()
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        body += decoder.feed(wire[start:end])
    assert body == b"".join(pieces)
    assert decoder.is_complete


def test_body_is_chunked_sized_or_until_the_close() -> None:
    assert isinstance(body_of(b"http/1.1 200 ok\r\ntransfer-encoding: chunked"), Chunked)
    sized = body_of(b"http/1.1 200 ok\r\ncontent-length: 4\r\nx: y")
    assert sized.feed(b"ab") == b"ab"
    assert not sized.is_complete
    assert (sized.feed(b"cd"), sized.is_complete) == (b"cd", True)
    endless = body_of(b"http/1.1 200 ok")
    assert isinstance(endless, Sized)
    assert (endless.feed(b"ab"), endless.is_complete) == (b"ab", False)


def test_backend_reads_the_options_that_concern_it() -> None:
    found = script(b" tokens=3 pace=1.5 jitter=0 stamp=text stall=2 ")
    assert (found.tokens, found.pace, found.stall, found.stamp) == (3, 1.5, 2, True)


def test_stamp_of_an_event_is_found_in_it() -> None:
    assert STAMP.findall(event(b"@%019d" % 1234567890123, b"xx")) == [b"0000001234567890123"]


def test_request_of_each_dialect_is_whole_and_resumes_with_an_id() -> None:
    asked = Target("http://host:81/base", "typed").request("a b", "sid.7").decode()
    assert asked.startswith(
        "GET /base/api/v2/chat-stream?query=a%20b HTTP/1.1\r\nHost: host:81\r\n"
    )
    assert "\r\nLast-Event-ID: sid.7\r\n" in asked
    for dialect in ("openai", "anthropic"):
        head, _, body = Target("http://host", dialect).request("hello").partition(b"\r\n\r\n")
        assert f"Content-Length: {len(body)}".encode() in head
        assert b"hello" in body


def measurement(number: int, scenario: str, name: str, **figures: float) -> Measurement:
    return Measurement(number, scenario, name, dict(figures))


def test_ratios_are_taken_within_a_round_before_the_median() -> None:
    made = [
        *(measurement(n, "pace", "bare", cpu_us_per_event=v) for n, v in enumerate([10, 20, 40])),
        *(measurement(n, "pace", "gateway", cpu_us_per_event=v) for n, v in enumerate([5, 20, 30])),
    ]
    (found,) = ratios(made, "bare")
    assert (found.peer, found.median, found.least, found.most) == ("gateway", 0.75, 0.5, 1.0)


def test_what_a_peer_adds_is_its_figure_less_the_direct_one_of_its_round() -> None:
    made = [
        measurement(0, "pace", "direct", latency_p50_us=10),
        measurement(0, "pace", "bare", latency_p50_us=45),
    ]
    add_differences(made)
    assert made[1].figures["added_latency_p50_us"] == 35
    assert "added_latency_p50_us" not in made[0].figures


def test_growth_compares_a_peer_with_itself() -> None:
    made = [
        measurement(0, "pace", "bare", cpu_us_per_event=20),
        measurement(0, "many", "bare", cpu_us_per_event=25),
    ]
    assert [(r.peer, r.median) for r in growth(made)] == [("bare", 1.25)]


def test_who_begins_rotates_from_round_to_round() -> None:
    plan = Comparison([peer("direct"), peer("bare")], [SCENARIOS["pace"]], rounds=2)
    assert [(n, p.name) for n, _, p in plan.steps()] == [
        (0, "direct"),
        (0, "bare"),
        (1, "bare"),
        (1, "direct"),
    ]


def test_measuring_side_says_when_it_is_the_limit() -> None:
    assert limits({"load_cpu": 0.9, "backend_cpu": 0.1}) == ["load"]
    assert limits({"load_cpu": 0.2, "backend_cpu": 0.99}) == ["backend"]
    assert limits({"load_cpu": 0.6, "backend_cpu": 0.35, "is_shared": 1}) == ["load + backend"]
    assert limits({"load_cpu": 0.6, "backend_cpu": 0.35}) == []
    assert limits({"load_cpu": 0.3, "backend_cpu": 0.3}) == []


def test_another_tree_of_the_gateway_is_a_peer_of_its_own() -> None:
    other = peer("gateway-typed@/somewhere/else")
    assert (other.name, other.dialect) == ("gateway-typed@/somewhere/else", "typed")


def test_options_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(BadOptions, match="either --url or --peer"):
        load(parser().parse_args(["run"]))
    with pytest.raises(BadOptions, match="colon"):
        load(parser().parse_args(["run", "--url", "http://h", "--header", "nonsense"]))


def test_question_for_the_demo_backend_asks_for_stamps_and_says_how_many_to_expect() -> None:
    made = load(parser().parse_args(["run", "--url", "http://h", "--mock", "tokens=9 pace=2"]))
    assert made.question.endswith("[mock: tokens=9 pace=2 stamp=text]")
    assert (made.expected, made.is_stamped) == (9, True)


def test_plots_are_svg_with_words_that_are_safe() -> None:
    plot = bars("a < b", [("<peer>", 2.0, 1.0, 3.0)], "µs")
    assert "&lt;peer&gt;" in plot
    assert "<peer>" not in plot
    assert percentile_curve("times", [1.0, 2.0, 3.0], "ms").count("<polyline") == 1
    assert percentile_curve("times", [], "ms") == ""


def test_every_peer_of_the_setup_script_is_known() -> None:
    text = (others.ROOT / "scripts" / "bench-setup").read_text()
    assert set(re.findall(r"^peer_(\w+)\(\)", text, re.MULTILINE)) <= KNOWN.keys()


def test_own_process_has_cpu_and_memory() -> None:
    assert process.cpu_s(process.own_pid()) > 0
    assert process.memory_bytes(process.own_pid()) > 1 << 20
