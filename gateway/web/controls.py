"""What operators change while the gateway runs: flags, update mode, debug mode, emergency mode.

It lives in memory: a restart goes back to the settings, and so does a reset. What runs already goes
on as it began.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import get_args

from gateway.errors import BadRequest
from gateway.flags import Flags, Rollout
from gateway.settings import Settings

logger = logging.getLogger("sluice")

MODES: tuple[str, ...] = get_args(Settings.model_fields["performance_mode"].annotation)


@dataclass(frozen=True, slots=True)
class State:
    """`emergency` wins over the flags: nobody gets streaming, `/v1/*` is a plain proxy."""

    streaming_enabled: bool
    rollout_percent: float
    performance_mode: str
    debug: bool = False
    emergency: bool = False


_NAMES = frozenset(field.name for field in fields(State))


class Controls:
    """The state in force.

    Args:
        set_debug: Switches the debug lines of the log on, or back to what the settings say.
    """

    def __init__(self, settings: Settings, flags: Flags, set_debug: Callable[[bool], None]) -> None:
        self._flags = flags
        self._set_debug = set_debug
        self._at_start = State(
            settings.enable_sse_streaming,
            settings.sse_streaming_rollout_percent,
            settings.performance_mode,
            debug=settings.log_level == "debug",
        )
        self.state = self._at_start

    @property
    def is_streaming(self) -> bool:
        """Whether anybody gets streaming; who does is the flags' business."""
        return self.state.streaming_enabled and not self.state.emergency

    def streams_for(self, rollout_key: str) -> bool:
        """Whether this user gets streaming."""
        return self.is_streaming and self._flags.streaming_enabled(rollout_key)

    def change(self, wanted: Mapping[str, object]) -> State:
        """Changes what is named, all of it or nothing.

        Raises:
            BadRequest: `unknown_control` or `invalid_control`.
        """
        checked = {name: _checked(name, value) for name, value in wanted.items()}
        return self._apply(replace(self.state, **checked))  # type: ignore[arg-type]

    def reset(self) -> State:
        """Back to the settings, out of the emergency."""
        return self._apply(self._at_start)

    def _apply(self, state: State) -> State:
        self.state = state
        self._flags.set_streaming(Rollout(state.streaming_enabled, state.rollout_percent))
        self._set_debug(state.debug)
        told = {
            "streaming_enabled": state.streaming_enabled,
            "rollout_percent": state.rollout_percent,
            "performance_mode": state.performance_mode,
            "debug": state.debug,
            "emergency": state.emergency,
        }
        logger.warning("controls.changed", extra=told)
        return state


def _checked(name: str, value: object) -> object:
    if name not in _NAMES:
        raise BadRequest("There is no such control.", code="unknown_control")
    match name:
        case "rollout_percent":
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            is_valid = is_number and 0 <= float(value) <= 100  # type: ignore[arg-type]
        case "performance_mode":
            is_valid = value in MODES
        case _:
            is_valid = isinstance(value, bool)
    if not is_valid:
        raise BadRequest("This control can't be that.", code="invalid_control", param=name)
    return value
