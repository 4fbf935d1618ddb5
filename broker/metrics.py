"""What Prometheus is told of a node. No label names a VM or a person (docs/operations.md lists the alerts on these)."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from eva.consent import Kind
from eva.control import Refusal
from eva.ending import Ending
from eva.ledger import Reject
from eva.token import BadToken, Fault, Typ

HANDSHAKES = ("path", "host", "origin", "ticket", "token", "lobby", "handshakes", "issuer")  # what a handshake is refused for
log = logging.getLogger(__name__)

_FAST = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Tally:
    """A number that the loop alone changes: a Counter of the library takes a lock, for each key that is typed."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


class Tallies(Collector):
    """A counter by kind of console, made of tallies."""

    def __init__(self, name: str, text: str) -> None:
        self._name = name
        self._text = text
        self._tallies = {kind: Tally() for kind in Kind}

    def of(self, kind: Kind) -> Tally:
        return self._tallies[kind]

    def collect(self) -> Iterator[CounterMetricFamily]:
        family = CounterMetricFamily(self._name, self._text, labels=["kind"])
        for kind, tally in self._tallies.items():
            family.add_metric([kind], tally.count)
        yield family


class Counting:
    """Turns a BadToken into a count and a log line."""

    def __init__(self, tokens: Counter, typ: Typ) -> None:
        self._tokens = tokens
        self._typ = typ

    def __enter__(self) -> None:
        return None

    def __exit__(self, _sort: object, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, BadToken):
            return False
        self._tokens.labels(self._typ, error.fault).inc()
        log.warning("%s refused: %s", self._typ, error)
        return True


class Metrics:
    """One node's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.sessions = Gauge("eva_sessions", "Sessions admitted and not ended", ["kind"], registry=registry)
        self.endings = Counter("eva_sessions_ended", "Sessions ended, by reason", ["kind", "reason"], registry=registry)
        self.refused = Counter("eva_requests_refused", "Requests of operators refused, by reason", ["reason"], registry=registry)
        self.to_operator = Tallies("eva_bytes_to_operator", "Console bytes sent to operators")
        self.to_guest = Tallies("eva_bytes_to_guest", "Operator bytes written to consoles")
        registry.register(self.to_operator)
        registry.register(self.to_guest)
        self.opening = Histogram(
            "eva_console_open_seconds", "From request to open console", ["kind"], registry=registry, buckets=_FAST
        )
        self.cut = Histogram(
            "eva_cut_seconds",
            "From a revocation's arrival to every gate shut and descriptor closed",
            registry=registry,
            buckets=_FAST,
        )
        self.watches = Gauge("eva_watches", "Watch connections of tenants", registry=registry)
        self.lease_age = Gauge(
            "eva_lease_age_seconds", "Age of the newest lease that counts; -1 before the first", registry=registry
        )
        self.lease_asked = Counter("eva_lease_requests", "Leases asked for, by path", ["path"], registry=registry)
        self.held = Tally()
        held = Gauge("eva_input_held_bytes", "Operator bytes that wait at the gate", registry=registry)
        held.set_function(lambda: self.held.count)
        self.filtered = Counter(
            "eva_filtered", "What a filter took out, by filter and sort", ["filter", "sort"], registry=registry
        )
        self.tokens = Counter("eva_tokens_refused", "Tokens refused, by type and fault", ["typ", "fault"], registry=registry)
        self.consents = Gauge("eva_consents_standing", "Consents in force", registry=registry)
        self.consents_refused = Counter("eva_consents_refused", "Well signed consents refused", ["why"], registry=registry)
        self.hosts_up = Gauge("eva_hosts_up", "Hypervisor hosts whose inventory is known", registry=registry)
        self.hosts = Gauge("eva_hosts", "Hypervisor hosts in the settings", registry=registry)
        self.tcp_displays = Gauge("eva_domains_with_tcp_display", "Domains whose display listens on TCP", registry=registry)
        self.loop_lag = Gauge("eva_loop_lag_seconds", "How late the daemon's own clock tick was last", registry=registry)
        self.disk_wait = Gauge("eva_disk_wait_seconds", "Age of the oldest write that waits for the disk", registry=registry)
        # a counter that starts with its first event hides that event from Prometheus' increase()
        for refusal in (*Refusal, *HANDSHAKES):
            self.refused.labels(refusal)
        for typ, fault in itertools.product(Typ, Fault):
            self.tokens.labels(typ, fault)
        for reject in Reject:
            self.consents_refused.labels(reject)
        for kind in Kind:
            self.sessions.labels(kind)
            for ending in Ending:
                self.endings.labels(kind, ending.word)

    def counting(self, typ: Typ) -> Counting:
        """For a `with`: a bad message is no fault of the task that reads it."""
        return Counting(self.tokens, typ)

    def text(self) -> bytes:
        """The exposition in Prometheus' text format 0.0.4."""
        return generate_latest(self.registry)
