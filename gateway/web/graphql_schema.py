"""The GraphQL schema, as strawberry reads it off these classes; `gateway.web.graphql` loads it.

No `from __future__ import annotations`: strawberry looks at the types themselves.
"""

from collections.abc import AsyncIterator
from typing import Annotated

import strawberry
from strawberry.aiohttp.views import GraphQLView

from gateway.web import graphql
from gateway.web.body import parse_json_object


@strawberry.type(name="Stream", description="A stream, as GET /api/v2/streams/{id} tells it.")
class StreamType:
    stream_id: str
    status: str
    reason: str | None
    conversation_id: str | None
    trace_id: str
    text: str
    total_chunks: int
    total_tokens: int | None
    first_event_id: str | None
    last_event_id: str | None
    created_at: str
    ended_at: str | None


@strawberry.input
class TerminateStreamInput:
    session_id: str | None = None
    conversation_id: str | None = None
    reason: str | None = None


@strawberry.type
class TerminateStreamResult:
    success: bool
    session_id: str | None = None
    partial_response: str | None = None
    token_count: int | None = None
    error: str | None = None


Id = Annotated[str, strawberry.argument(description="A stream's id.")]


@strawberry.type
class Query:
    @strawberry.field
    async def stream(self, info: strawberry.Info, session_id: Id) -> StreamType | None:
        found = await graphql.find(info.context["request"], session_id)
        return _stream(found) if found is not None else None

    @strawberry.field
    async def streams(self, info: strawberry.Info, conversation_id: str) -> list[StreamType]:
        found = await graphql.find_all(info.context["request"], conversation_id)
        return [_stream(one) for one in found]


@strawberry.type
class Mutation:
    @strawberry.mutation
    async def terminate_stream(
        self,
        info: strawberry.Info,
        input: TerminateStreamInput,  # noqa: A002
    ) -> TerminateStreamResult:
        asked: dict[str, object] = {
            "sessionId": input.session_id,
            "conversationId": input.conversation_id,
            "reason": input.reason,
        }
        answer = await graphql.terminate(info.context["request"], asked)
        return TerminateStreamResult(
            success=answer["success"] is True,
            session_id=_text(answer.get("sessionId")),
            partial_response=_text(answer.get("partialResponse")),
            token_count=_count(answer.get("tokenCount")),
            error=_text(answer.get("error")),
        )


@strawberry.type
class Subscription:
    @strawberry.subscription
    async def stream(self, info: strawberry.Info, session_id: Id) -> AsyncIterator[StreamType]:
        async for state in graphql.follow(info.context["request"], session_id):
            yield _stream(state)


class _View(GraphQLView[None, None]):
    def parse_json(self, data: str | bytes) -> object:
        """As every other route reads it: the library's own way fails on what is no object."""
        return parse_json_object(data if isinstance(data, bytes) else data.encode())


def make_view() -> GraphQLView[None, None]:
    """The aiohttp view of the schema, without a page to try it on."""
    return _View(strawberry.Schema(Query, Mutation, Subscription), graphql_ide=None)


def _stream(state: dict[str, object]) -> StreamType:
    return StreamType(**{name: state[name] for name in StreamType.__annotations__})  # type: ignore[arg-type]


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: object) -> int | None:
    return value if isinstance(value, int) else None
