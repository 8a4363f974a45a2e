"""Finds out who asks. Public pages and probes are for everybody, `/api/admin` for operators."""

from __future__ import annotations

from aiohttp import hdrs, web

from gateway.identity import client_address, identify
from gateway.tokens import credential_of
from gateway.web.audited import note_login
from gateway.web.routes import is_admin, is_public, takes_link
from gateway.web.services import IDENTITY, SERVICES


async def authenticate(request: web.Request) -> None:
    """Leaves the identity with the request.

    Raises:
        Unauthorized: there is no valid credential where one is needed.
    """
    services = request.app[SERVICES]
    subject = None
    if is_admin(request):
        services.admin.check(_credential(request))
    elif services.settings.auth_mode != "none" and not _is_free(request):
        subject = await services.authenticator.authenticate(_credential(request))
    peer = _peer(request)
    address = client_address(
        peer, request.headers.getall("X-Forwarded-For", []), services.settings.trusted_proxies
    )
    request[IDENTITY] = identify(
        subject=subject,
        user_id=request.headers.get("X-User-Id"),
        peer=peer,
        address=address,
        trusted=services.settings.trusted_proxies,
    )
    note_login(request)


def _credential(request: web.Request) -> str | None:
    return credential_of(request.headers.get(hdrs.AUTHORIZATION), request.headers.get("X-Api-Key"))


def _is_free(request: web.Request) -> bool:
    """Whether no credential is needed: for a link, the route checks that in its place."""
    return is_public(request) or takes_link(request)


def _peer(request: web.Request) -> str | None:
    name = request.transport.get_extra_info("peername") if request.transport else None
    return name[0] if isinstance(name, tuple) else None
