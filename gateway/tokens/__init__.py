"""Proof of who asks: the credential of a request, and the ways to check it.

`gateway.tokens.verifier` is apart, so that only `AUTH_MODE=jwt` loads the cryptography.
"""

from gateway.tokens.credentials import (
    AdminToken,
    ApiKeyAuthenticator,
    Authenticator,
    NoAuthentication,
    credential_of,
)

__all__ = [
    "AdminToken",
    "ApiKeyAuthenticator",
    "Authenticator",
    "NoAuthentication",
    "credential_of",
]
