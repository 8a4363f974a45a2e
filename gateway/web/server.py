"""The HTTP server: aiohttp's, with its limits set and its parser's errors answered as ours are."""

from __future__ import annotations

import logging
import socket
import ssl

import aiohttp.http_parser
from aiohttp import web

from gateway.errors import SettingsError
from gateway.settings import Settings
from gateway.web.protocol import Server

logger = logging.getLogger("sluice.request")

#: Bounds what a client that takes nothing costs in the kernel, which would else grow it to 4 MiB.
_SEND_BUFFER_BYTES = 128 * 1024
_BACKLOG = 2048
_TCP_USER_TIMEOUT = getattr(socket, "TCP_USER_TIMEOUT", None)  #: Linux
_MAX_LINE_BYTES = 8190
_MAX_HEADER_BYTES = 16 * 1024
_C_PARSER = "aiohttp._http_parser"


def check_parser() -> None:
    """
    Raises:
        SettingsError: aiohttp fell back to its parser in Python, which lets framing attacks pass.
    """
    module = aiohttp.http_parser.HttpRequestParser.__module__
    if module != _C_PARSER:
        raise SettingsError(
            "aiohttp runs without its C parser; install its binary wheel for this platform and "
            "unset AIOHTTP_NO_EXTENSIONS"
        )


class Runner(web.AppRunner):
    """Serves one application; every limit of aiohttp that matters here is set explicitly."""

    def __init__(self, app: web.Application, settings: Settings) -> None:
        super().__init__(
            app,
            access_log=None,
            # Else a client that has gone is noticed at the next write, minutes later perhaps.
            handler_cancellation=True,
            # It is the idle limit and the deadline for a request's head in one.
            keepalive_timeout=settings.keepalive_seconds or 365 * 86_400.0,
            auto_decompress=False,
            max_line_size=_MAX_LINE_BYTES,
            max_field_size=_MAX_HEADER_BYTES,
            read_bufsize=32 * 1024,
            shutdown_timeout=1.0,
        )

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = Server  # aiohttp has no hook for who speaks with a client
        vars(server)["app"] = self.app
        return server


async def listen(runner: Runner, settings: Settings) -> str:
    """Starts to accept connections and tells where.

    Raises:
        SettingsError: the address can't be listened on, or the certificate can't be read.
    """
    context = _tls_context(settings)
    try:
        sock = _bind(settings)
        site = web.SockSite(runner, sock, ssl_context=context, backlog=_BACKLOG)
        await site.start()
    except OSError as error:
        where = settings.unix_socket or f"{settings.host}:{settings.port}"
        raise SettingsError(f"can't listen on {where}: {error.strerror}") from error
    if settings.unix_socket is not None:
        return f"unix:{settings.unix_socket}"
    host, port = sock.getsockname()[:2]
    scheme = "http" if context is None else "https"
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _bind(settings: Settings) -> socket.socket:
    if settings.unix_socket is not None:
        settings.unix_socket.unlink(missing_ok=True)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.bind(str(settings.unix_socket))
        return sock
    family, kind, protocol, _, address = socket.getaddrinfo(
        settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    if _TCP_USER_TIMEOUT is not None and settings.write_stall_seconds:
        # For a client that has vanished. Connections inherit it, which saves each stream three
        # system calls.
        stall_ms = round(settings.write_stall_seconds * 1000)
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_USER_TIMEOUT, stall_ms)
    try:
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock


def _tls_context(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise SettingsError(f"TLS_CERT, TLS_KEY: can't be read ({error.strerror})") from error
    return context
