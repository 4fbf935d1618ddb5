"""The statements of every consent, receipt and lease, made once: to build one anew costs three times what it costs to run it.

Parameters that a statement compares with end in an underscore, so that none is taken for a column that is set.
"""

from __future__ import annotations

from sqlalchemy import and_, bindparam, delete, func, insert, select, update

from provider.store.schema import (
    anchors,
    consents,
    feature_subscriptions,
    features,
    key_sets,
    loads,
    nodes,
    receipts,
    revocations,
    watermarks,
)

LEAVING = frozenset({"ended_ms", "moved_ms", "replaced_ms", "revoked_ms"})  # any of them set: its node serves it no more
SERVED_STILL = and_(*(consents.c[name].is_(None) for name in sorted(LEAVING)))

# nodes
NODE = select(nodes).where(nodes.c.name == bindparam("name_"))
NODE_OF_KEY = select(nodes).where(nodes.c.kid == bindparam("kid_"))
NODES = select(nodes).order_by(nodes.c.name)
PUBLIC_KEY = select(nodes.c.public_key).where(nodes.c.kid == bindparam("kid_"))
SET_NODE = update(nodes).where(nodes.c.name == bindparam("name_"))
ANCHOR = select(anchors.c.head).where(and_(anchors.c.kid == bindparam("kid_"), anchors.c.count == bindparam("count_")))
ADD_ANCHOR = insert(anchors)

# how many consents a node serves
LOADS = select(loads.c.node, func.sum(loads.c.consents)).where(loads.c.until > bindparam("now_")).group_by(loads.c.node)
COUNT = (
    update(loads)
    .where(and_(loads.c.node == bindparam("node_"), loads.c.until == bindparam("until_")))
    .values(consents=loads.c.consents + bindparam("by_"))
)
ADD_LOAD = insert(loads)
DROP_LOADS = delete(loads).where(and_(loads.c.node == bindparam("node_"), loads.c.until <= bindparam("now_")))

# consents
CONSENT = select(consents).where(consents.c.jti == bindparam("jti_"))
UNEXPIRED = select(consents).where(
    and_(consents.c.resource_key == bindparam("resource_key_"), consents.c.expires_at > bindparam("now_"))
)
TOKENS_OF = select(consents).where(consents.c.cid == bindparam("cid_")).order_by(consents.c.issued_at, consents.c.jti)
ADD_CONSENT = insert(consents)
SET_CONSENT = update(consents).where(consents.c.jti == bindparam("jti_"))
SERVED = select(consents.c.node, consents.c.expires_at).where(and_(consents.c.jti == bindparam("jti_"), SERVED_STILL))
_COVERED = and_(
    consents.c.resource_key == bindparam("resource_key_"),
    consents.c.issued_at <= bindparam("issued_by_"),
    consents.c.node == bindparam("node_"),
)
SERVED_AND_COVERED = select(consents.c.node, consents.c.expires_at).where(and_(_COVERED, SERVED_STILL))
REVOKE_COVERED = update(consents).where(_COVERED, consents.c.revoked_ms.is_(None)).values(revoked_ms=bindparam("now_ms_"))

# revocations
WATERMARK = select(watermarks.c.issued_by).where(watermarks.c.resource_key == bindparam("resource_key_"))
REVOCATION = select(revocations).where(and_(revocations.c.node == bindparam("node_"), revocations.c.seq == bindparam("seq_")))
REVOCATIONS_AFTER = (
    select(revocations.c.token)
    .where(and_(revocations.c.node == bindparam("node_"), revocations.c.seq > bindparam("seq_")))
    .order_by(revocations.c.seq)
    .limit(bindparam("most_"))
)
ADD_REVOCATION = insert(revocations)

# receipts
ADD_RECEIPT = insert(receipts)
RECEIPT = select(receipts.c.token).where(and_(receipts.c.kid == bindparam("kid_"), receipts.c.number == bindparam("number_")))

# who may
STATE = select(features.c.state).where(features.c.name == bindparam("name_"))
LISTED = select(feature_subscriptions.c.subscription).where(
    and_(
        feature_subscriptions.c.feature == bindparam("feature_"),
        feature_subscriptions.c.subscription == bindparam("subscription_"),
    )
)
VERSION = select(func.max(key_sets.c.version))
