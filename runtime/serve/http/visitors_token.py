"""The token that opens a page to visitors: asked for in the page's address once, and a cookie from then on."""

from __future__ import annotations

import hashlib
import hmac
import secrets


class VisitorsToken:
    """Compares in constant time.

    Attributes:
        cookie: what stands for the token in a browser; it is worth nothing after a restart.
    """

    def __init__(self, token: str | None) -> None:
        """None opens to everybody."""
        self._token = token
        self.cookie = hmac.new(secrets.token_bytes(32), (token or "").encode(), hashlib.sha256).hexdigest()

    @property
    def needed(self) -> bool:
        """Whether there is a token."""
        return self._token is not None

    def fits(self, bearer: str, cookie: str, asked: str) -> bool:
        """Whether one of what a request brings opens: `Authorization: Bearer`, the cookie, the page's address."""
        if self._token is None:
            return True
        candidates = [(bearer, self._token), (cookie, self.cookie), (asked, self._token)]
        # Every comparison is made, so that the time tells nothing.
        return any([equal(given, wanted) for given, wanted in candidates])


def equal(given: str, wanted: str) -> bool:
    """Whether two secrets are the same, in constant time."""
    # Bytes of a header that are no UTF-8 come as surrogates.
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


def bearer_of(authorization: str) -> str:
    """The secret of the header `Authorization: Bearer`, or "" of any other."""
    scheme, _, secret = authorization.partition(" ")
    return secret.strip() if scheme.lower() == "bearer" else ""
