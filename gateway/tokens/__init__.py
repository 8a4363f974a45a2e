"""Proof of who asks: the credential of a request, and the ways to check it.

`gateway.tokens.verifier` is apart, so that only `AUTH_MODE=jwt` loads the cryptography.
"""

from gateway.tokens.credentials import (
    ApiKeyAuthenticator,
    Authenticator,
    NoAuthentication,
    credential_of,
)

__all__ = ["ApiKeyAuthenticator", "Authenticator", "NoAuthentication", "credential_of"]
