"""The way from a command to the gateway that these settings have started on this machine."""

from __future__ import annotations

import ssl
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Self, TypeAlias

import aiohttp

from gateway.errors import SettingsError
from gateway.settings import Settings

_PATIENCE_S = 30
Answering: TypeAlias = AbstractAsyncContextManager[aiohttp.ClientResponse]
#: What listens everywhere is here too.
_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104


class LocalGateway:
    """Asks with the operator's token, if there is one, where the settings say or at `url`.

    With TLS it trusts the certificate that the settings name, whatever host that is for, and no
    other: it is the gateway's own, and the way doesn't leave this machine.

    Raises:
        SettingsError: the certificate can't be read.
    """

    def __init__(self, settings: Settings, url: str | None = None) -> None:
        self._settings = settings
        self._tls = _own_tls(settings) if url is None else None
        self._path = settings.unix_socket if url is None else None
        scheme = "https" if self._tls is not None else "http"
        self._host = settings.allowed_hosts[0] if settings.allowed_hosts and url is None else None
        self.base = url.rstrip("/") if url is not None else f"{scheme}://{_authority(settings)}"

    async def __aenter__(self) -> Self:
        path = self._path
        self._session = aiohttp.ClientSession(
            connector=aiohttp.UnixConnector(str(path)) if path else aiohttp.TCPConnector(),
            headers=self._headers(),
            timeout=aiohttp.ClientTimeout(total=_PATIENCE_S),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self._session.close()

    def request(self, method: str, path: str, body: object = None) -> Answering:
        """An answer, whatever its status, as a context; `body` goes as JSON.

        Raises:
            ClientError, TimeoutError: no gateway answers.
        """
        return self._session.request(
            method, self.base + path, json=body, allow_redirects=False, ssl=self._tls or True
        )

    async def get(self, path: str) -> str:
        """
        Raises:
            ClientError, TimeoutError: no gateway answers, or it refuses.
        """
        async with self.request("GET", path) as answer:
            answer.raise_for_status()
            return await answer.text()

    def _headers(self) -> dict[str, str]:
        headers, token = {}, self._settings.admin_token
        if token is not None:
            headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        if self._host is not None:
            headers["Host"] = self._host
        return headers


def _authority(settings: Settings) -> str:
    if settings.unix_socket is not None:
        return "localhost"
    host = _HERE.get(settings.host, settings.host)
    return f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}"


def _own_tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    try:
        context.load_verify_locations(settings.tls_cert)
    except OSError as error:
        raise SettingsError(f"TLS_CERT can't be read: {error.strerror}") from error
    return context
