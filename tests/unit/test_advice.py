"""What people are told when something fails: every code has a sentence that they understand."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.advice import ADVICE, UNKNOWN, advise
from gateway.stream.model import ENDING_REASONS, error_ending
from tests import code_facts

STATIC = Path(__file__).parents[2] / "gateway" / "static"


def browser_codes() -> set[str]:
    """The codes of the JavaScript client's own errors."""
    sources = [path.read_text() for path in STATIC.glob("sluice*.js") if "advice" not in path.name]
    pattern = r"(?:new StreamError|#replace)\('([a-z_]+)'"
    return {code for source in sources for code in re.findall(pattern, source)}


def is_failure(reason: str) -> bool:
    try:
        return error_ending(reason).is_error
    except KeyError:
        return False


def test_every_code_has_its_advice_and_there_is_none_for_what_there_is_not() -> None:
    codes = set(code_facts.error_codes()) | set(filter(is_failure, ENDING_REASONS))
    assert browser_codes()
    assert set(ADVICE) == codes | code_facts.client_codes() | browser_codes()


@pytest.mark.parametrize("code", ADVICE)
def test_advice_is_two_sentences_without_the_words_of_developers(code: str) -> None:
    advice = ADVICE[code]
    for sentence in (advice.says, advice.do):
        assert re.fullmatch(r"[A-Z][^_{}`]{5,90}\.", sentence)
        assert not re.search(r"\b(stream|backend|upstream|HTTP|JSON|cursor|token)\b", sentence)


def test_code_that_is_not_known_gets_something_general() -> None:
    assert advise("made_up") is UNKNOWN


def test_web_page_is_told_the_same() -> None:
    script = (
        f"const {{ advise }} = await import({json.dumps(str(STATIC / 'sluice-advice.js'))});"
        f"console.log(JSON.stringify({json.dumps([*ADVICE, 'made_up'])}.map(advise)))"
    )
    node = shutil.which("node")
    assert node is not None
    command = [node, "--input-type=module", "-e", script]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    expected = [*ADVICE.values(), UNKNOWN]
    assert json.loads(printed) == [{"says": one.says, "do": one.do} for one in expected]
