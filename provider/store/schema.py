"""The store's tables. Who changes them here writes a migration too: provider/store/migrations/, and HEAD names its revision."""

from __future__ import annotations

from sqlalchemy import BigInteger, Column, ForeignKey, Index, MetaData, Table, Text, text

HEAD = "0003"

# What is looked up by its beginning, so compared byte by byte whatever the database's locale.
Key = Text().with_variant(Text(collation="C"), "postgresql")

metadata = MetaData()

# Times: *_ms are Unix milliseconds on this host's clock, *_at Unix seconds as the tokens have them.
nodes = Table(
    "nodes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("folded", Text, nullable=False, unique=True),  # host names differ by more than case
    Column("kid", Text, nullable=False, unique=True),
    Column("public_key", Text, nullable=False),
    Column("enrolled_ms", BigInteger, nullable=False),
    Column("seq", BigInteger, nullable=False, default=0),  # the highest revocation number given
    Column("receipts", BigInteger, nullable=False, default=0),  # every receipt up to this number is in
    Column("applied", BigInteger, nullable=False, default=0),  # the seq that it last asked with
    Column("asked_ms", BigInteger, nullable=False, default=0),
    Column("audit_count", BigInteger, nullable=False, default=0),
    Column("audit_head", Text, nullable=False, default=""),
    Column("behind_ms", BigInteger),  # when it told a shorter audit chain than before: it is refused since
    Column("conflict_ms", BigInteger),  # when it told another audit chain than before: it is refused since
    Column("conflict_count", BigInteger),
    Column("asked_at", BigInteger),  # the newest iat of its lease requests
)

consents = Table(
    "consents",
    metadata,
    Column("jti", Text, primary_key=True),
    Column("node", Text, ForeignKey("nodes.name"), nullable=False),
    Column("cid", Text, nullable=False),  # the jti of its first token: the same over renewals and moves
    Column("kid", Text, nullable=False),  # the key that signed it
    Column("resource_key", Key, nullable=False),
    Column("issued_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("token", Text, nullable=False),
    Column("claims", Text, nullable=False),  # the token's body as JSON, for listing without the key
    Column("offered_until_ms", BigInteger, nullable=False),
    Column("answer", Text),  # accepted or refused, by the node's receipt
    Column("answered_ms", BigInteger),
    Column("uuid", Text),
    Column("why", Text),
    Column("granted_ms", BigInteger),  # the giver was told
    Column("revoked_ms", BigInteger),
    Column("ended_ms", BigInteger),  # the node says that it ended by itself
    Column("ended_reason", Text),
    Column("replaced_ms", BigInteger),  # a renewal stands in its place at the same node
    Column("moved_ms", BigInteger),  # its node was lost: another has it since
    Index("consents_by_cid", "cid"),
    Index("consents_by_key", "kid", "expires_at"),
    Index("consents_by_vm", "resource_key", "expires_at"),
    Index("consents_by_node", "node", "expires_at"),
    Index("consents_by_age", "resource_key", "issued_at"),
    # only what a lost node served and no other has yet: looked for every second
    Index(
        "consents_homeless",
        "moved_ms",
        sqlite_where=text("moved_ms IS NOT NULL AND replaced_ms IS NULL AND ended_ms IS NULL"),
        postgresql_where=text("moved_ms IS NOT NULL AND replaced_ms IS NULL AND ended_ms IS NULL"),
    ),
    # only what waits for an answer: the sweep's cost does not grow with the history
    Index(
        "consents_offered",
        "offered_until_ms",
        sqlite_where=text("granted_ms IS NULL AND revoked_ms IS NULL"),
        postgresql_where=text("granted_ms IS NULL AND revoked_ms IS NULL"),
    ),
)

revocations = Table(
    "revocations",
    metadata,
    Column("node", Text, ForeignKey("nodes.name"), primary_key=True),
    Column("seq", BigInteger, primary_key=True, autoincrement=False),
    Column("jti", Text, nullable=False, unique=True),
    Column("consent", Text, index=True),  # no foreign key: a node may delete a consent that a lost store never had
    Column("resource_key", Key, index=True),
    Column("issued_by", BigInteger),
    Column("made_ms", BigInteger, nullable=False),
    Column("token", Text, nullable=False),
    Column("confirmed_ms", BigInteger),
    Column("cut_us", BigInteger),
    Column("sessions", BigInteger),
)

watermarks = Table(
    "watermarks",
    metadata,
    Column("resource_key", Key, primary_key=True),
    Column("issued_by", BigInteger, nullable=False),
)

receipts = Table(
    "receipts",
    metadata,
    Column("kid", Text, primary_key=True),  # a node with a new key counts anew
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("node", Text, nullable=False),
    Column("about", Text, nullable=False, index=True),
    Column("event", Text, nullable=False),
    Column("received_ms", BigInteger, nullable=False),
    Column("token", Text, nullable=False),
)

# What the receipts of the consents' records tell: provider/store/visits.py.
visits = Table(
    "visits",
    metadata,
    Column("cid", Text, primary_key=True),
    Column("node", Text, primary_key=True),
    Column("session", Text, primary_key=True),
    Column("account", Text, nullable=False),
    Column("address", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("access", Text, nullable=False),
    Column("began_ms", BigInteger, nullable=False),
    Column("ended_ms", BigInteger),
    Column("ending", Text),
    Index("visits_by_time", "cid", "began_ms"),
)

pauses = Table(
    "pauses",
    metadata,
    Column("cid", Text, primary_key=True),
    Column("node", Text, primary_key=True),
    Column("paused", BigInteger, nullable=False),  # 1 for the word to pause, 0 for the word to resume
    Column("at_ms", BigInteger, nullable=False),
)

anchors = Table(
    "anchors",
    metadata,
    Column("kid", Text, primary_key=True),
    Column("count", BigInteger, primary_key=True, autoincrement=False),
    Column("head", Text, nullable=False),
    Column("told_ms", BigInteger, nullable=False),
)

key_sets = Table(
    "key_sets",
    metadata,
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("signing_kid", Text, nullable=False),
    Column("token", Text, nullable=False),
    Column("made_ms", BigInteger, nullable=False),
)

# How many consents a node serves, by the quarter of an hour in which they run out: the choice of a node reads a few rows,
# however many consents there are. provider/store/books.py counts.
loads = Table(
    "loads",
    metadata,
    Column("node", Text, ForeignKey("nodes.name"), primary_key=True),
    Column("until", BigInteger, primary_key=True, autoincrement=False),
    Column("consents", BigInteger, nullable=False),
)

features = Table(
    "features",
    metadata,
    Column("name", Text, primary_key=True),
    Column("state", Text, nullable=False),  # the global state: provider/consent/features.py
)

feature_subscriptions = Table(
    "feature_subscriptions",
    metadata,
    Column("feature", Text, primary_key=True),
    Column("subscription", Text, primary_key=True),  # in small letters
    Column("spelled", Text, nullable=False),  # as it was given
    Column("enabled_ms", BigInteger, nullable=False),
    Column("enabled_by", Text, nullable=False),
)

role_assignments = Table(
    "role_assignments",
    metadata,
    Column("principal", Text, primary_key=True),
    Column("scope_key", Key, primary_key=True),
    Column("role", Text, primary_key=True),
    Column("scope", Text, nullable=False),  # as it was given
    Column("made_ms", BigInteger, nullable=False),
)
