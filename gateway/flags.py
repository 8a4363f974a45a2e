"""Feature flags, asked through OpenFeature and answered from the settings.

An operator's own provider can take the place of ours. The published environment provider isn't
used, since it reads the string "false" as true (`bool("false")`).
"""

from __future__ import annotations

import hashlib
import logging
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn

from openfeature import api
from openfeature.evaluation_context import EvaluationContext
from openfeature.exception import FlagNotFoundError, TypeMismatchError
from openfeature.flag_evaluation import (
    FlagEvaluationDetails,
    FlagResolutionDetails,
    FlagValueType,
    Reason,
)
from openfeature.provider import AbstractProvider, FeatureProvider, Metadata
from openfeature.provider.no_op_provider import NoOpProvider

from gateway.settings import Settings

SSE_STREAMING = "sse_streaming"

_BUCKETS = 10_000
_TRUE_WORDS = frozenset({"1", "on", "t", "true", "y", "yes"})

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Rollout:
    """Whether a flag is on, and for which share of users, 0 to 100."""

    enabled: bool
    percent: float = 100

    @classmethod
    def parse(cls, enabled: bool | str, percent: float | str = 100) -> Rollout:
        """From the environment's words. What isn't clearly a yes is a no.

        Raises:
            ValueError: `percent` isn't a number.
        """
        is_on = enabled if isinstance(enabled, bool) else enabled.strip().lower() in _TRUE_WORDS
        return cls(is_on, float(percent))


class EnvironmentProvider(AbstractProvider):
    """OpenFeature's view of the flags in the settings. All are booleans."""

    def __init__(self, rollouts: Mapping[str, Rollout]) -> None:
        super().__init__()
        self._rollouts = dict(rollouts)

    def set(self, flag_key: str, rollout: Rollout) -> None:
        """Changes a flag while the gateway runs; counts from the next evaluation."""
        self._rollouts[flag_key] = rollout

    def get_metadata(self) -> Metadata:
        return Metadata(name="environment")

    def resolve_boolean_details(
        self,
        flag_key: str,
        default_value: bool,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[bool]:
        rollout = self._rollouts.get(flag_key)
        if rollout is None:
            raise FlagNotFoundError(f"there is no flag {flag_key}")
        if not rollout.enabled:
            return _details(False, Reason.DISABLED)
        if rollout.percent >= 100:
            return _details(True, Reason.STATIC)
        key = evaluation_context.targeting_key if evaluation_context else None
        return _details(_is_chosen(flag_key, key, rollout.percent), Reason.SPLIT)

    def resolve_string_details(
        self,
        flag_key: str,
        default_value: str,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[str]:
        self._refuse(flag_key)

    def resolve_integer_details(
        self,
        flag_key: str,
        default_value: int,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[int]:
        self._refuse(flag_key)

    def resolve_float_details(
        self,
        flag_key: str,
        default_value: float,
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[float]:
        self._refuse(flag_key)

    def resolve_object_details(
        self,
        flag_key: str,
        default_value: Sequence[FlagValueType] | Mapping[str, FlagValueType],
        evaluation_context: EvaluationContext | None = None,
    ) -> FlagResolutionDetails[Sequence[FlagValueType] | Mapping[str, FlagValueType]]:
        self._refuse(flag_key)

    def _refuse(self, flag_key: str) -> NoReturn:
        if flag_key in self._rollouts:
            raise TypeMismatchError(f"the flag {flag_key} is a boolean")
        raise FlagNotFoundError(f"there is no flag {flag_key}")


class Flags:
    """The gateway's flags. Each instance has an OpenFeature domain to itself, so that it neither
    replaces another's provider nor meets one; `close` gives the provider back."""

    def __init__(self, settings: Settings, provider: FeatureProvider | None = None) -> None:
        """`provider` is the operator's own, initialised here; while it fails, every flag is off."""
        self._domain = f"sluice-{uuid.uuid4().hex}"
        rollout = Rollout(settings.enable_sse_streaming, settings.sse_streaming_rollout_percent)
        self._own = EnvironmentProvider({SSE_STREAMING: rollout})
        self._asks_own = provider is None
        self._bind(provider or self._own)
        self._client = api.get_client(self._domain)

    def streaming_enabled(self, rollout_key: str) -> bool:
        """Whether this user gets streaming; the same answer for the same key, and once it is yes,
        it stays yes while the rollout grows."""
        if self._asks_own:
            # The same answer without OpenFeature's hooks and checks, whose part of a short stream
            # was a twenty-fifth.
            context = EvaluationContext(targeting_key=rollout_key)
            return self._own.resolve_boolean_details(SSE_STREAMING, False, context).value
        return self.streaming_details(rollout_key).value

    def set_streaming(self, rollout: Rollout) -> None:
        """Changes the flag while the gateway runs. An operator's own provider goes on deciding for
        itself."""
        self._own.set(SSE_STREAMING, rollout)

    def streaming_details(self, rollout_key: str) -> FlagEvaluationDetails[bool]:
        """The same with OpenFeature's reason: `DISABLED`, `STATIC`, `SPLIT`, or `ERROR`."""
        context = EvaluationContext(targeting_key=rollout_key)
        return self._client.get_boolean_details(SSE_STREAMING, False, context)

    def close(self) -> None:
        """Shuts the provider down; every flag is off afterwards. Safe to call twice."""
        self._asks_own = False
        api.set_provider_and_wait(NoOpProvider(), self._domain)

    def _bind(self, provider: FeatureProvider) -> None:
        try:
            api.set_provider_and_wait(provider, self._domain)
        except Exception:  # whatever an operator's provider raises; it may recover by itself
            logger.exception("flags.provider_failed")


def _details(value: bool, reason: Reason) -> FlagResolutionDetails[bool]:
    return FlagResolutionDetails(value, reason=reason, variant="on" if value else "off")


def _is_chosen(flag_key: str, targeting_key: str | None, percent: float) -> bool:
    """A user's bucket never changes, so a larger share holds all of a smaller one. The flag's name
    is hashed too, or the same users would be first with every flag."""
    if not targeting_key:
        return False
    digest = hashlib.sha256(f"{flag_key}:{targeting_key}".encode(errors="replace")).digest()
    return int.from_bytes(digest[:8]) % _BUCKETS < percent * _BUCKETS / 100
