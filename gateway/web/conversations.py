"""Conversations as a resource: what is kept of one, and to forget it."""

from __future__ import annotations

from datetime import UTC, datetime

from aiohttp import hdrs, web

from gateway.errors import NotFound
from gateway.stream.conversations import Conversation, Conversations
from gateway.web.response import json_response
from gateway.web.services import IDENTITY, SERVICES

PATH = "/api/v2/conversations/{conversation_id}"


async def conversation(request: web.Request) -> web.StreamResponse:
    if request.method not in (hdrs.METH_GET, hdrs.METH_DELETE):
        raise web.HTTPMethodNotAllowed(request.method, (hdrs.METH_GET, hdrs.METH_DELETE))
    conversations = request.app[SERVICES].conversations
    owner, name = request[IDENTITY].owner, request.match_info["conversation_id"]
    found = conversations.find(owner, name)
    if found is None:
        raise NotFound("There is no such conversation.", code="conversation_not_found")
    if request.method == hdrs.METH_DELETE:
        conversations.delete(owner, name)
        return web.Response(status=204)
    return json_response(_describe(conversations, found))


def _describe(conversations: Conversations, found: Conversation) -> dict[str, object]:
    age_ms = conversations.age_ms(found)
    used_at = found.created_at + (found.last_accessed - found.created)
    return {
        "chatId": found.chat_id,
        "parentId": found.parent_id,
        "createdAt": datetime.fromtimestamp(found.created_at, UTC).isoformat(),
        "lastAccessed": datetime.fromtimestamp(used_at, UTC).isoformat(),
        "age": age_ms,
    }
