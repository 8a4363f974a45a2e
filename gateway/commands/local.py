"""The gateway that these settings have started on this machine, as a command speaks with it."""

from __future__ import annotations

import ssl
from types import TracebackType
from typing import Self

import aiohttp

from gateway.settings import Settings

_PATIENCE_S = 10
#: What listens everywhere is here too.
_HERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}  # noqa: S104


class LocalGateway:
    """Asks with the operator's token, if there is one. With TLS it trusts the certificate that the
    settings name, whatever host that is for: it is the gateway's own, and the way doesn't leave
    this machine."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def __aenter__(self) -> Self:
        settings, token = self._settings, self._settings.admin_token
        headers = {}
        if token is not None:
            headers["Authorization"] = f"Bearer {token.get_secret_value()}"
        if settings.allowed_hosts:
            headers["Host"] = settings.allowed_hosts[0]
        path = settings.unix_socket
        self._tls = _trusting(settings)
        self._session = aiohttp.ClientSession(
            f"http{'s' if self._tls else ''}://{_authority(settings)}",
            connector=aiohttp.UnixConnector(str(path)) if path else aiohttp.TCPConnector(),
            headers=headers,
            timeout=aiohttp.ClientTimeout(total=_PATIENCE_S),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, path: str) -> str:
        """
        Raises:
            ClientError, TimeoutError, OSError: there is no gateway, or it refuses.
        """
        async with self._session.get(
            path, raise_for_status=True, allow_redirects=False, ssl=self._tls or True
        ) as answer:
            return await answer.text()


def _authority(settings: Settings) -> str:
    if settings.unix_socket is not None:
        return "localhost"
    host = _HERE.get(settings.host, settings.host)
    return f"[{host}]:{settings.port}" if ":" in host else f"{host}:{settings.port}"


def _trusting(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None:
        return None
    context = ssl.create_default_context(cafile=str(settings.tls_cert))
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.check_hostname = False
    return context
