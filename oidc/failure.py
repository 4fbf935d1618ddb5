"""Why a sign-in came to nothing. `detail` is for the log: it quotes no code, token or secret. The person is told little.

SignInFailed
  Unreachable     the issuer gives no answer, or none within the bounds
  Misconfigured   the issuer answers, and not as OpenID Connect has it, or as another issuer
  Declined        the issuer says no: `error` is its word (RFC 6749 4.1.2.1), such as access_denied
  NotBelieved     what came back is not an answer to what was asked, or its ID token does not verify
"""

from __future__ import annotations


class SignInFailed(Exception):
    def __init__(self, detail: str) -> None:
        self.detail = detail
        super().__init__(detail)


class Unreachable(SignInFailed):
    pass


class Misconfigured(SignInFailed):
    pass


class Declined(SignInFailed):
    def __init__(self, error: str) -> None:
        self.error = error
        super().__init__(f"the issuer declined: {error}")


class NotBelieved(SignInFailed):
    pass
