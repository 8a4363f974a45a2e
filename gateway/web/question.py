"""Reads what the typed route is asked, from a query string or a JSON body."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from aiohttp import hdrs, web

from gateway.errors import BadRequest
from gateway.sse.event import Message, Prompt
from gateway.web.body import is_json, parse_json_object, read_body
from gateway.web.resume import fingerprint

MAX_BODY_BYTES = 1024 * 1024
_MAX_NAME_CHARS = 256
_MAX_HISTORY = 1000
_NAMES = ("user_email", "user_role", "conversation_id")


async def read_question(request: web.Request) -> tuple[Prompt, bytes]:
    """The question, and the fingerprint by which it is known again.

    Raises:
        BadRequest: with the parameter that is wrong and a code, listed in docs/errors.md.
    """
    if request.method == hdrs.METH_GET:
        return _parse(_from_query(request)), fingerprint(request, b"")
    if not is_json(request):
        raise BadRequest(
            "Send the question as application/json.", code="unsupported_media_type", status=415
        )
    body = await read_body(request, MAX_BODY_BYTES)
    return _parse(parse_json_object(body)), fingerprint(request, body)


def _from_query(request: web.Request) -> dict[str, object]:
    values: dict[str, object] = {}
    for name, value in request.query.items():
        if name in values:
            raise BadRequest("This parameter is given twice.", code="repeated", param=name)
        values[name] = value
    history = values.get("conversation_history")
    if isinstance(history, str):
        try:
            values["conversation_history"] = orjson.loads(history)
        except orjson.JSONDecodeError:
            raise BadRequest(
                "This parameter isn't valid JSON.",
                code="invalid_json",
                param="conversation_history",
            ) from None
    return values


def _parse(values: Mapping[str, object]) -> Prompt:
    names = {name: _name(values, name) for name in _NAMES}
    return Prompt(
        query=_query(values),
        history=_history(values.get("conversation_history")),
        conversation_id=names["conversation_id"],
        user_email=names["user_email"],
        user_role=names["user_role"],
    )


def _query(values: Mapping[str, object]) -> str:
    query = values.get("query")
    if query is None:
        raise BadRequest("A query is required.", code="missing_query", param="query")
    if not isinstance(query, str):
        raise BadRequest("The query must be a string.", code="invalid_type", param="query")
    if not query.strip():
        raise BadRequest("The query is empty.", code="empty_query", param="query")
    _check_text(query, "query")
    return query


def _name(values: Mapping[str, object], name: str) -> str | None:
    """A short text that may end up in a header or an event: printable, on one line."""
    value = values.get(name)
    if value is None or value == "":
        return None
    if not isinstance(value, str):
        raise BadRequest("This must be a string.", code="invalid_type", param=name)
    if len(value) > _MAX_NAME_CHARS:
        raise BadRequest(
            f"This is over {_MAX_NAME_CHARS} characters.", code="value_too_long", param=name
        )
    if not value.isprintable():
        raise BadRequest("This has forbidden characters.", code="invalid_characters", param=name)
    return value


def _history(value: object) -> tuple[Message, ...]:
    param = "conversation_history"
    if value is None:
        return ()
    if not isinstance(value, list):
        raise BadRequest("The history must be a list.", code="invalid_type", param=param)
    if len(value) > _MAX_HISTORY:
        raise BadRequest("The history is too long.", code="value_too_long", param=param)
    return tuple(_message(item, f"{param}[{index}]") for index, item in enumerate(value))


def _message(item: object, param: str) -> Message:
    role = item.get("role") if isinstance(item, dict) else None
    content = item.get("content") if isinstance(item, dict) else None
    if not isinstance(role, str) or not isinstance(content, str):
        raise BadRequest(
            "Each turn needs a role and a content, both strings.", code="invalid_type", param=param
        )
    if not role.isidentifier():
        raise BadRequest("The role isn't a word.", code="invalid_characters", param=param)
    _check_text(content, param)
    return Message(role, content)


def _check_text(text: str, param: str) -> None:
    if "\0" in text:
        raise BadRequest("A text must not hold NUL.", code="invalid_characters", param=param)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise BadRequest(
            "A text has half a surrogate pair.", code="invalid_characters", param=param
        ) from None
