"""The routes that answer questions: one handler, six dialects."""

from __future__ import annotations

from typing import cast

from aiohttp import web

from scripts.mock.answers import answer_to
from scripts.mock.behaviour import Behaviour, requested, without_options
from scripts.mock.dialects import (
    anthropic,
    ollama,
    openai_chat,
    openai_completions,
    openai_responses,
    rag,
)
from scripts.mock.dialects.base import Ask, Dialect, Identity
from scripts.mock.playing import Performance, give_whole
from scripts.mock.replies import read_object, reply
from scripts.mock.stats import Stats

DEFAULTS = web.AppKey("defaults", Behaviour)
STATS = web.AppKey("stats", Stats)

ROUTES = cast(
    "dict[str, Dialect]",
    {
        "/v1/chat/completions": openai_chat,
        "/v1/completions": openai_completions,
        "/v1/responses": openai_responses,
        "/v1/messages": anthropic,
        "/api/chat": ollama,
        "/chat/stream": rag,
    },
)

_MESSAGES = {
    401: "Incorrect API key provided.",
    429: "Rate limit reached for requests.",
    500: "The server had an error while processing your request.",
    503: "The server is currently overloaded with other requests.",
}


class Chat:
    """`POST` on the path of one dialect."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect

    async def answer(self, request: web.Request) -> web.StreamResponse:
        try:
            ask = self._dialect.read(await read_object(request))
            behaviour = _behaviour(request, ask)
        except ValueError as error:
            return self._failure(400, str(error))
        with request.app[STATS].answering():
            return await self._give(request, ask, behaviour)

    async def _give(
        self, request: web.Request, ask: Ask, behaviour: Behaviour
    ) -> web.StreamResponse:
        identity = Identity(behaviour.seed)
        question = without_options(ask.question)
        answer = answer_to(question, behaviour, ask.tool, ask.max_tokens)
        speaker = self._dialect.speaker(ask, answer, identity)
        if behaviour.status is not None:
            return self._failure(behaviour.status, retry_after=behaviour.retry_after)
        if ask.stream:
            return await Performance(speaker, behaviour, identity).give(
                request, answer, request.app[STATS]
            )
        if behaviour.error is not None:
            return self._failure(500)
        return await give_whole(request, speaker, behaviour)

    def _failure(self, status: int, message: str = "", retry_after: int = 1) -> web.Response:
        message = message or _MESSAGES.get(status, "The request failed.")
        headers = {"Retry-After": str(retry_after)} if status in (429, 503, 529) else None
        return reply(self._dialect.failure(status, message), status=status, headers=headers)


def _behaviour(request: web.Request, ask: Ask) -> Behaviour:
    """What the request wants. An option that doesn't exist is the request's mistake: 400.

    Raises:
        BadOption: says which option.
    """
    query, header = request.query.get("mock", ""), request.headers.get("X-Mock", "")
    return requested(request.app[DEFAULTS], ask.question, query, header)
