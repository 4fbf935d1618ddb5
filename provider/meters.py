"""The provider's numbers for Prometheus. No label names a virtual machine or a person."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class Meters:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.leases = Counter("eva_provider_leases", "Leases answered", ["way"], registry=self.registry)
        self.lease_seconds = Histogram(
            "eva_provider_lease_seconds",
            "From a lease request's arrival to its signed answer",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
            registry=self.registry,
        )
        self.refused = Counter("eva_provider_refused", "Messages and wishes refused", ["reason"], registry=self.registry)
        self.dropped = Counter("eva_provider_dropped", "MQTT messages dropped because a queue was full", registry=self.registry)
        self.receipts = Counter("eva_provider_receipts", "Receipts taken", ["event"], registry=self.registry)
        self.bad_receipts = Counter("eva_provider_bad_receipts", "Receipts refused", registry=self.registry)
        self.conflicts = Counter(
            "eva_provider_conflicts", "Two signed words of one node that cannot both be true", ["about"], registry=self.registry
        )
        self.grants = Counter("eva_provider_grants", "Grants by outcome", ["outcome"], registry=self.registry)
        self.revocations = Counter(
            "eva_provider_revocations", "Revocations published (leases carry them all the same)", registry=self.registry
        )
        self.moved = Counter(
            "eva_provider_consents_moved", "Offers to another node, because theirs was lost", registry=self.registry
        )
        self.confirmed_seconds = Histogram(
            "eva_provider_revocation_confirmed_seconds",
            "From a revocation's making to its signed confirmation",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 16.0, 60.0),
            registry=self.registry,
        )
        self.requests = Counter(
            "eva_provider_requests",
            "Requests to the REST by endpoint and class of status; none: the peer left before its answer",
            ["endpoint", "status"],
            registry=self.registry,
        )
        self.request_seconds = Histogram(
            "eva_provider_request_seconds",
            "From a request's head to the end of its answer",
            ["endpoint"],
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 16.0),
            registry=self.registry,
        )
        self.mqtt_up = Gauge(
            "eva_provider_mqtt_up", "1 while the MQTT broker has this provider's session", registry=self.registry
        )
