"""The requests of a client: the question, going on with its stream, stopping it."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import aiohttp
import orjson
from aiohttp import hdrs
from multidict import CIMultiDict
from yarl import URL

from gateway.client.errors import Dropped, StreamError
from gateway.client.retry import parse_retry_after

LAST_EVENT_ID = "Last-Event-ID"
_MAX_REFUSAL_BYTES = 64 * 1024
_SHORT = aiohttp.ClientTimeout(total=10)
_STREAM = aiohttp.ClientTimeout(total=None, sock_connect=10)

Headers = Mapping[str, str] | Callable[[], Awaitable[Mapping[str, str]]]


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and how often the same question may be sent: a POST with a key, always."""

    url: str
    method: str = hdrs.METH_GET
    body: bytes | None = None
    headers: Headers | None = None
    idempotency_key: str | None = None
    stop_url: str | None = None

    @classmethod
    def make(
        cls,
        url: str,
        method: str,
        json: object,
        headers: Headers | None,
        *,
        idempotency_key: str | None,
        stop_url: str | None,
    ) -> Question:
        """Serialises the body once, so that each repetition has the same bytes."""
        method = method.upper()
        if idempotency_key is None and method == hdrs.METH_POST:
            idempotency_key = uuid.uuid4().hex
        body = None if json is None else orjson.dumps(json)
        return cls(url, method, body, headers, idempotency_key, stop_url)


class Source:
    """Asks, and once the server has named the stream (`Location`) asks for that instead.

    A `Location` on another origin is ignored: the credentials aren't for it.
    """

    def __init__(self, question: Question, session: aiohttp.ClientSession | None) -> None:
        self._question = question
        self._session = session
        self._is_owner = session is None
        self._location: URL | None = None

    @property
    def is_repeatable(self) -> bool:
        """Whether asking again, even without a cursor, can't begin a second answer."""
        return self._location is not None or self._question.method == hdrs.METH_GET

    @property
    def renews_headers(self) -> bool:
        return callable(self._question.headers)

    def learn(self, response: aiohttp.ClientResponse) -> None:
        """Takes the stream's address from a response that is its stream."""
        location = response.headers.get(hdrs.LOCATION)
        if location is None:
            return
        try:
            url = response.url.join(URL(location))
        except ValueError:
            return
        if url.origin() == response.url.origin():
            self._location = url

    async def ask(self, last_event_id: str) -> aiohttp.ClientResponse:
        """One attempt.

        Raises:
            Dropped: the network failed.
            StreamError: nothing can be asked at such a URL.
        """
        question = self._question
        headers = await self._headers()
        headers.setdefault(hdrs.ACCEPT, "text/event-stream")
        headers.setdefault(hdrs.ACCEPT_ENCODING, "identity")
        if last_event_id:
            headers[LAST_EVENT_ID] = last_event_id
        if self._location is not None:
            return await self._send(hdrs.METH_GET, self._location, headers)
        if question.body is not None:
            headers.setdefault(hdrs.CONTENT_TYPE, "application/json")
        if question.idempotency_key is not None:
            headers["Idempotency-Key"] = question.idempotency_key
        return await self._send(question.method, URL(question.url), headers, question.body)

    async def stop(self, stream_id: str | None) -> dict[str, object] | None:
        """Ends the generation; the server's account of it. None where there is no way to do so.

        Raises:
            Dropped: the network failed, or the server is busy.
            StreamError: it refused.
        """
        headers = await self._headers()
        if self._question.stop_url is not None:
            headers[hdrs.CONTENT_TYPE] = "application/json"
            body = orjson.dumps({"sessionId": stream_id})
            url = URL(self._question.stop_url)
            response = await self._send(hdrs.METH_POST, url, headers, body, timeout=_SHORT)
        elif self._location is not None:
            url = self._location
            response = await self._send(hdrs.METH_DELETE, url, headers, timeout=_SHORT)
        else:
            return None
        async with response:
            if not response.ok:
                raise await read_refusal(response)
            return await _read_object(response)

    async def close(self) -> None:
        """Closes the session, if it wasn't given."""
        if self._is_owner and self._session is not None:
            await self._session.close()

    async def _headers(self) -> CIMultiDict[str]:
        given = self._question.headers
        return CIMultiDict((await given() if callable(given) else given) or {})

    async def _send(
        self,
        method: str,
        url: URL,
        headers: CIMultiDict[str],
        body: bytes | None = None,
        timeout: aiohttp.ClientTimeout = _STREAM,
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = aiohttp.ClientSession()
        try:
            return await self._session.request(
                method, url, headers=headers, data=body, timeout=timeout, raise_for_status=False
            )
        except (aiohttp.InvalidURL, aiohttp.TooManyRedirects) as error:
            raise StreamError("invalid_url", str(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise Dropped(StreamError("connection_failed", str(error))) from error


async def read_refusal(response: aiohttp.ClientResponse) -> StreamError:
    """The error that a response stands for, with the server's own code where it gives one."""
    try:
        data: object = orjson.loads(await response.content.read(_MAX_REFUSAL_BYTES))
    except (ValueError, aiohttp.ClientError, OSError):
        data = None
    error = data.get("error") if isinstance(data, dict) else None
    code, message = f"http_{response.status}", f"the server answered {response.status}"
    if isinstance(error, dict):
        code = str(error.get("code") or error.get("type") or code)
        message = str(error.get("message") or message)
    elif isinstance(error, str):
        message = error
    retry_after_s = parse_retry_after(response.headers.get(hdrs.RETRY_AFTER))
    return StreamError(code, message, status=response.status, retry_after_s=retry_after_s)


async def _read_object(response: aiohttp.ClientResponse) -> dict[str, object]:
    try:
        data: object = orjson.loads(await response.read())
    except (aiohttp.ClientError, OSError) as error:
        raise Dropped(StreamError("connection_failed", str(error))) from error
    except ValueError:
        data = None
    return data if isinstance(data, dict) else {}
