"""A host of many virtual machines without a guest in any: libvirt's test driver, which keeps what an XML file describes. Pure.

The broker, its watcher and libvirt are the real ones: a consent needs a domain that carries its resource ID, and no console.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from eva.resource_id import ResourceId
from lab.domain import RESOURCE_NAMESPACE

SUBSCRIPTIONS = 64  # so that no caller's hourly budget of writes in one of them runs out

_DOMAIN = """<domain type='test'>
<name>{name}</name><uuid>{uuid}</uuid>
<metadata><eva:resource xmlns:eva='{namespace}'>{resource_id}</eva:resource></metadata>
<memory>1024</memory><vcpu>1</vcpu><os><type>hvm</type></os>
<devices><console type='pty'/></devices>
</domain>
"""


def machines(count: int) -> list[ResourceId]:
    subscriptions = [str(uuid.uuid5(uuid.NAMESPACE_URL, f"subscription {number}")) for number in range(SUBSCRIPTIONS)]
    return [ResourceId(subscriptions[number % SUBSCRIPTIONS], "rg1", f"vm{number}") for number in range(count)]


def host_xml(ids: Sequence[ResourceId]) -> str:
    """For `test:///FILE`: every machine defined and running."""
    domains = "".join(
        _DOMAIN.format(
            name=one.vm, uuid=uuid.uuid5(uuid.NAMESPACE_URL, str(one)), namespace=RESOURCE_NAMESPACE, resource_id=str(one)
        )
        for one in ids
    )
    return f"<node>{domains}</node>\n"
