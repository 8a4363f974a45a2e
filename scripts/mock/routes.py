"""The routes that don't generate: models, embeddings, files, and what tests of a proxy look at."""

from __future__ import annotations

import base64
import hashlib
import math
import random
from array import array
from collections.abc import AsyncIterator

import orjson
from aiohttp import BodyPartReader, web

from scripts.mock.chat import STATS
from scripts.mock.dialects.base import count, openai_failure
from scripts.mock.replies import read_object, reply

MODELS = ("demo", "demo-small", "demo-large")
DIMENSIONS = 1536
BLOCK = bytes(range(256)) * 256

routes = web.RouteTableDef()


@routes.get("/health")
async def health(request: web.Request) -> web.Response:
    return reply({"status": "ok"})


@routes.get("/v1/models")
async def models(request: web.Request) -> web.Response:
    data = [
        {"id": name, "object": "model", "created": 1_760_000_000, "owned_by": "demo"}
        for name in MODELS
    ]
    return reply({"object": "list", "data": data})


@routes.get("/api/tags")
async def tags(request: web.Request) -> web.Response:
    data = [
        {"name": f"{name}:latest", "model": f"{name}:latest", "size": 4_661_224_676}
        for name in MODELS
    ]
    return reply({"models": data})


@routes.post("/v1/embeddings")
async def embeddings(request: web.Request) -> web.Response:
    """The same text has the same vector of length 1, whatever is asked together with it."""
    try:
        body = await read_object(request)
    except ValueError as error:
        return reply(openai_failure(400, str(error)), status=400)
    asked = body.get("input")
    inputs = asked if isinstance(asked, list) else [asked]
    size = count(body.get("dimensions")) or DIMENSIONS
    vectors = [_vector(orjson.dumps(item), size) for item in inputs]
    encode = _base64 if body.get("encoding_format") == "base64" else list
    data = [
        {"object": "embedding", "index": index, "embedding": encode(vector)}
        for index, vector in enumerate(vectors)
    ]
    tokens = sum(len(str(item).split()) for item in inputs)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    answer = {"object": "list", "data": data, "model": body.get("model"), "usage": usage}
    return reply(answer)


def _vector(data: bytes, size: int) -> array[float]:
    source = random.Random(hashlib.sha256(data).digest())
    values = [source.gauss(0, 1) for _ in range(size)]
    length = math.hypot(*values)
    return array("f", (value / length for value in values))


def _base64(vector: array[float]) -> str:
    return base64.b64encode(vector.tobytes()).decode()


@routes.post("/v1/files")
async def files(request: web.Request) -> web.Response:
    """Reads a multipart upload as it comes and keeps nothing of it."""
    form: dict[str, str] = {}
    size, digest, name = 0, hashlib.sha256(), ""
    try:
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                continue
            if part.name != "file":
                form[part.name or ""] = await part.text()
                continue
            name = part.filename or "file"
            while block := await part.read_chunk(1 << 16):
                size += len(block)
                digest.update(block)
    except (ValueError, AssertionError) as error:
        return reply(openai_failure(400, str(error)), status=400)
    return reply(
        {
            "id": f"file-{digest.hexdigest()[:24]}",
            "object": "file",
            "bytes": size,
            "created_at": 1_760_000_000,
            "filename": name,
            "purpose": form.get("purpose", "user_data"),
            "status": "processed",
            "sha256": digest.hexdigest(),
        }
    )


@routes.route("*", "/echo")
@routes.route("*", "/echo/{tail:.*}")
async def echo(request: web.Request) -> web.Response:
    """What arrived: the path and the headers as they were sent, the body by length and digest."""
    size, digest = 0, hashlib.sha256()
    async for block in request.content.iter_any():
        size += len(block)
        digest.update(block)
    return reply(
        {
            "method": request.method,
            "path": request.raw_path,
            "headers": [[name.decode(), value.decode()] for name, value in request.raw_headers],
            "body_sha256": digest.hexdigest(),
            "body_bytes": size,
        }
    )


@routes.get("/download")
async def download(request: web.Request) -> web.StreamResponse:
    """`?bytes=N` of the pattern 0…255, with a length unless `chunked=1`."""
    left = int(request.query.get("bytes", "0"))
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    if "chunked" not in request.query:
        response.content_length = left
    await response.prepare(request)
    with request.app[STATS].answering():
        async for block in _blocks(left):
            await response.write(block)
    return response


async def _blocks(left: int) -> AsyncIterator[bytes]:
    while left > 0:
        yield BLOCK[:left]
        left -= len(BLOCK)


@routes.get("/stats")
async def stats(request: web.Request) -> web.Response:
    return reply(request.app[STATS].as_json())


@routes.delete("/stats")
async def reset_stats(request: web.Request) -> web.Response:
    request.app[STATS].reset()
    return web.Response(status=204)
