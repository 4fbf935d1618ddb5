"""Certificates, keys and authorities put into TLS contexts. OpenSSL does not say which file it could not take; these do.

Errors: OSError with the file's name; ssl.SSLError, whose text begins with it.
"""

from __future__ import annotations

import ssl
from pathlib import Path


def load_pair(context: ssl.SSLContext, certificate: Path, key: Path | None) -> None:
    """The certificate with its key, which may stand in the same file."""
    _readable(certificate, key or certificate)
    try:
        context.load_cert_chain(certificate, key)
    except ssl.SSLError as error:
        names = str(certificate) if key is None else f"{certificate} with {key}"
        raise _named(names, error) from None


def load_authority(context: ssl.SSLContext, authority: Path) -> None:
    """Whom the context believes."""
    _readable(authority)
    try:
        context.load_verify_locations(authority)
    except ssl.SSLError as error:
        raise _named(str(authority), error) from None


def client_context(authority: Path | None) -> ssl.SSLContext:
    """A client's context that believes this file's authorities and no others, or the system's."""
    if authority is None:
        return ssl.create_default_context()
    _readable(authority)
    try:
        return ssl.create_default_context(cafile=str(authority))
    except ssl.SSLError as error:
        raise _named(str(authority), error) from None


def _readable(*paths: Path) -> None:
    for path in paths:
        path.open("rb").close()


def _named(files: str, error: ssl.SSLError) -> ssl.SSLError:
    why = (error.reason or error.strerror or "no reason given").replace("_", " ").lower()
    return ssl.SSLError(1, f"{files}: not to be taken: {why}")
