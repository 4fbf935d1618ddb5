"""What the daemon will read from files besides its keys, read as it will, for `check-config`: TLS files and key sets of issuers.

Of an issuer whose key set is at a URL only the authorities' file is read: its server may start later than the provider, and a
check changes and calls nothing.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from oidc.key_set import read_key_set
from provider.mqtt import tls_context
from provider.rest.endpoints import registered
from provider.rest.jwks import read_bounded
from provider.rest.settings import Issuer
from provider.settings import Settings
from provider.store.secret import BadSecret
from web.assets import MissingAssets, site


def faults(settings: Settings) -> Iterator[str]:
    """A line for each file that cannot be used, and why."""
    pairs = [(settings.lease.certificate, settings.lease.key)]
    issuers: tuple[Issuer, ...] = ()
    if settings.rest is not None:
        listeners = (settings.rest.tenant, settings.rest.admin.listener)
        pairs += [(one.certificate, one.key) for one in listeners]
        issuers = settings.rest.identity.issuers
    for certificate, key in dict.fromkeys(pairs):
        yield from _fault(f"{certificate} and {key}", partial(_server, certificate, key))
    if (tls := settings.mqtt.tls) is not None:
        named = ", ".join(str(path) for path in (tls.ca, tls.certificate, tls.key) if path is not None)
        yield from _fault(named, partial(tls_context, settings.mqtt))
    if (password := settings.mqtt.password_file) is not None:
        yield from _fault(str(password), partial(password.read_text, encoding="utf-8"))
    if settings.rest is not None and (watch := settings.rest.watch) is not None:
        if watch.client.ca is not None:
            yield from _fault(str(watch.client.ca), partial(ssl.create_default_context, cafile=watch.client.ca))
        yield from _fault("the client's secret", partial(registered, watch))
        yield from _fault("the page", partial(site, "watch"))
    for issuer in issuers:
        if issuer.jwks_ca is not None:
            yield from _fault(str(issuer.jwks_ca), partial(ssl.create_default_context, cafile=issuer.jwks_ca))
        if issuer.jwks_file is not None:
            yield from _fault(str(issuer.jwks_file), partial(_key_set, issuer, issuer.jwks_file))


def _fault(named: str, read: Callable[[], object]) -> Iterator[str]:
    try:
        read()
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        yield f"{named}: {error}"
    except (BadSecret, MissingAssets) as error:  # which name their file
        yield str(error)


def _server(certificate: Path, key: Path) -> None:
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(certificate, key)


def _key_set(issuer: Issuer, path: Path) -> None:
    algorithms = sorted(issuer.algorithms)
    if not any(algorithm in algorithms for _, algorithm in read_key_set(read_bounded(path))):
        raise ValueError(f"no key in it can sign for {issuer.name}, which uses {', '.join(algorithms)}")
