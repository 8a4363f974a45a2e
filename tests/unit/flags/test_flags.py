"""The streaming flag: words, shares, stickiness, foreign providers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

import pytest
from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import ErrorCode
from openfeature.flag_evaluation import FlagResolutionDetails, Reason
from openfeature.provider import FeatureProvider
from openfeature.provider.in_memory_provider import InMemoryFlag, InMemoryProvider

from gateway.flags import SSE_STREAMING, EnvironmentProvider, Flags, Rollout
from gateway.settings import Settings

USERS = [f"user:{number}" for number in range(10_000)]

Make = Callable[..., Flags]


@pytest.fixture
def make() -> Iterator[Make]:
    made: list[Flags] = []

    def make(
        enabled: object = True, percent: object = 100, provider: FeatureProvider | None = None
    ) -> Flags:
        settings = Settings.model_validate(
            {"enable_sse_streaming": enabled, "sse_streaming_rollout_percent": percent}
        )
        made.append(Flags(settings, provider))
        return made[-1]

    yield make
    for flags in made:
        flags.close()


def chosen(flags: Flags) -> set[str]:
    return {user for user in USERS if flags.streaming_enabled(user)}


def test_streaming_is_off_by_default() -> None:
    flags = Flags(Settings.model_validate({}))
    assert not flags.streaming_enabled("user:1")
    flags.close()


@pytest.mark.parametrize("word", ["false", "False", "0", "no", "off", "FALSE"])
def test_words_for_no_are_false(make: Make, word: str) -> None:
    assert not make(enabled=word).streaming_enabled("user:1")
    assert not Rollout.parse(word).enabled


@pytest.mark.parametrize("word", ["true", "TRUE", "1", "yes", "on"])
def test_words_for_yes_are_true(make: Make, word: str) -> None:
    assert make(enabled=word).streaming_enabled("user:1")
    assert Rollout.parse(f" {word} ").enabled


@pytest.mark.parametrize("word", ["", "perhaps", "2", "falsetrue"])
def test_what_isnt_clearly_a_yes_is_a_no(word: str) -> None:
    assert not Rollout.parse(word).enabled


@pytest.mark.parametrize(
    ("percent", "low", "high"), [(5, 430, 570), (25, 2350, 2650), (50, 4800, 5200)]
)
def test_share_of_users_is_what_was_asked_for(
    make: Make, percent: float, low: int, high: int
) -> None:
    assert low <= len(chosen(make(percent=percent))) <= high


def test_users_who_have_it_keep_it_while_the_rollout_grows(make: Make) -> None:
    grown = [chosen(make(percent=percent)) for percent in (0, 1, 5, 25, 50, 100)]
    for smaller, larger in pairwise(grown):
        assert smaller < larger
    assert grown[0] == set()
    assert grown[-1] == set(USERS)


def test_same_user_gets_the_same_answer_in_every_process(make: Make) -> None:
    assert chosen(make(percent=25)) == chosen(make(percent=25))
    half = make(percent=50)
    chosen_of_twelve = [n for n in range(12) if half.streaming_enabled(f"user:{n}")]
    assert chosen_of_twelve == [0, 2, 3, 5, 10, 11]


def test_flags_choose_their_users_apart() -> None:
    provider = EnvironmentProvider({"one": Rollout(True, 10), "other": Rollout(True, 10)})

    def of(flag: str) -> set[str]:
        return {
            user
            for user in USERS
            if provider.resolve_boolean_details(flag, False, EvaluationContext(user)).value
        }

    assert len(of("one") & of("other")) < 200


def test_nobody_without_a_name_is_in_a_partial_rollout(make: Make) -> None:
    assert not make(percent=99.99).streaming_enabled("")
    assert make(percent=100).streaming_enabled("")


def test_name_that_isnt_utf8_is_no_error(make: Make) -> None:
    assert make(percent=99.999).streaming_details("user:\udcff").error_code is None


@pytest.mark.parametrize(
    ("enabled", "percent", "reason"),
    [(False, 100, Reason.DISABLED), (True, 100, Reason.STATIC), (True, 50, Reason.SPLIT)],
)
def test_reason_is_told(make: Make, enabled: bool, percent: float, reason: Reason) -> None:
    details = make(enabled, percent).streaming_details("user:1")
    assert details.reason == reason
    assert details.variant == ("on" if details.value else "off")


def test_gateways_in_one_process_dont_share(make: Make) -> None:
    on, off = make(enabled=True), make(enabled=False)
    assert on.streaming_enabled("a")
    assert not off.streaming_enabled("a")
    assert api.get_client().provider.get_metadata().name == "No-op Provider"


def test_operators_provider_decides(make: Make) -> None:
    flag = InMemoryFlag("on", {"on": True, "off": False})
    flags = make(enabled=False, provider=InMemoryProvider({SSE_STREAMING: flag}))
    assert flags.streaming_enabled("a")


class Broken(EnvironmentProvider):
    """An operator's provider whose service is away."""

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        raise ConnectionError


class NeverReady(EnvironmentProvider):
    def initialize(self, evaluation_context: EvaluationContext) -> None:
        raise ConnectionError


class Wrong(EnvironmentProvider):
    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        return FlagResolutionDetails("false")  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", [Broken, Wrong])
def test_provider_that_fails_means_off(make: Make, kind: type[EnvironmentProvider]) -> None:
    details = make(provider=kind({})).streaming_details("a")
    assert details.value is False
    assert details.reason == Reason.ERROR


def test_provider_that_cant_start_doesnt_stop_the_gateway(make: Make) -> None:
    assert not make(provider=NeverReady({})).streaming_enabled("a")


def test_unknown_flag_is_off_and_says_so(make: Make) -> None:
    details = make(provider=EnvironmentProvider({})).streaming_details("a")
    assert (details.value, details.error_code) == (False, ErrorCode.FLAG_NOT_FOUND)


def test_flag_is_a_boolean_and_nothing_else() -> None:
    api.set_provider_and_wait(EnvironmentProvider({SSE_STREAMING: Rollout(True)}), "kinds")
    client = api.get_client("kinds")
    for details in (
        client.get_string_details(SSE_STREAMING, "default"),
        client.get_integer_details(SSE_STREAMING, 7),
        client.get_float_details(SSE_STREAMING, 7.5),
        client.get_object_details(SSE_STREAMING, {}),
    ):
        assert details.error_code == ErrorCode.TYPE_MISMATCH
    assert client.get_string_details("other", "").error_code == ErrorCode.FLAG_NOT_FOUND


def test_short_way_to_our_own_flag_tells_the_same_as_openfeature(make: Make) -> None:
    flags = make(percent=30)
    for user in USERS[:200]:
        assert flags.streaming_enabled(user) is flags.streaming_details(user).value


def test_flag_can_be_changed_while_it_runs(make: Make) -> None:
    provider = EnvironmentProvider({SSE_STREAMING: Rollout(False)})
    flags = make(provider=provider)
    assert not flags.streaming_enabled("a")
    provider.set(SSE_STREAMING, Rollout(True))
    assert flags.streaming_enabled("a")


def test_closed_flags_are_off(make: Make) -> None:
    flags = make()
    flags.close()
    flags.close()
    assert not flags.streaming_enabled("a")
