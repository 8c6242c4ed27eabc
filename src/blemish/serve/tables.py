"""The tables of a station. Times are whole microseconds since 1970, UTC: equal in every database, and sortable.

A part is in exactly one of two tables at any moment: in `accepted`, from the moment the station has taken it, or in
`verdicts`. One transaction moves it. `uid` and `key` are unique in both, so that no part has two verdicts.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()

_WHOLE = BigInteger().with_variant(Integer, "sqlite")  # SQLite counts up by itself in INTEGER alone

accepted = Table(
    "accepted",
    metadata,
    Column("uid", String(32), primary_key=True),
    Column("key", String(32), unique=True),  # a source's own name for this very delivery; None where it has none
    Column("accepted", BigInteger, nullable=False),
    Column("source", String(64), nullable=False),
    Column("part", String(256), nullable=False),
    Column("product", String(64), nullable=False),
    Column("path", Text),  # None: the picture is in memory alone
)
verdicts = Table(
    "verdicts",
    metadata,
    Column("id", _WHOLE, primary_key=True, autoincrement=True),  # in the order in which sinks hear of them
    Column("uid", String(32), nullable=False, unique=True),
    Column("key", String(32), unique=True),
    Column("accepted", BigInteger, nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("source", String(64), nullable=False),
    Column("part", String(256), nullable=False),
    Column("product", String(64), nullable=False),
    Column("path", Text),
    Column("label", String(16), nullable=False),  # one of LABELS
    Column("raw_score", Float(53)),
    Column("score", Float(53)),
    Column("threshold", Float(53)),
    Column("pixel_threshold", Float(53)),
    Column("height", Integer),
    Column("width", Integer),
    Column("model", String(64)),
    Column("regions", Text, nullable=False),
    Column("seconds", Float(53), nullable=False),
    Column("error", Text),
    Column("brightness", Float(53)),  # see `blemish.monitor.appearance`
    Column("sharpness", Float(53)),
    Index("verdicts_time", "time", "id"),
    Index("verdicts_label", "label", "time", "id"),
    Index("verdicts_product", "product", "time", "id"),
    Index("verdicts_product_label", "product", "label", "time", "id"),
    Index("verdicts_part", "part", "time", "id"),
)

users = Table(
    "users",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("password", String(256), nullable=False),  # argon2id
    Column("role", String(16), nullable=False),
    Column("active", Boolean, nullable=False),
    Column("created", BigInteger, nullable=False),
)
sessions = Table(
    "sessions",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the cookie, which is nowhere
    Column("user", String(64), ForeignKey("users.name"), nullable=False),
    Column("expires", BigInteger, nullable=False),
)
tokens = Table(
    "tokens",
    metadata,
    Column("digest", String(64), primary_key=True),  # SHA-256 of the token, which is nowhere
    Column("name", String(64), nullable=False, unique=True),
    Column("role", String(16), nullable=False),
    Column("expires", BigInteger, nullable=False),
    Column("revoked", Boolean, nullable=False),
    Column("creator", String(64), nullable=False),
)
audit = Table(
    "audit",
    metadata,
    Column("id", _WHOLE, primary_key=True, autoincrement=False),
    Column("time", BigInteger, nullable=False),
    Column("who", String(64), nullable=False),
    Column("action", String(64), nullable=False),
    Column("detail", Text, nullable=False),
    Column("digest", String(64), nullable=False),  # over the digest before, and this row
)

feedback = Table(
    "feedback",
    metadata,
    Column("id", _WHOLE, primary_key=True, autoincrement=True),
    Column("time", BigInteger, nullable=False),
    Column("uid", String(32), ForeignKey("verdicts.uid"), nullable=False),
    Column("who", String(64), nullable=False),
    Column("judgement", String(16), nullable=False),  # one of JUDGEMENTS
    Column("kind", String(64), nullable=False),
    Column("note", Text, nullable=False),
    Index("feedback_uid", "uid", "id"),
    Index("feedback_judgement", "judgement", "uid"),
)
review = Table(
    "review",
    metadata,
    Column("id", _WHOLE, primary_key=True, autoincrement=True),
    Column("time", BigInteger, nullable=False),
    Column("uid", String(32), ForeignKey("verdicts.uid"), nullable=False, unique=True),
    Column("why", String(16), nullable=False),
    Index("review_time", "time"),
)
thresholds = Table(
    "thresholds",
    metadata,
    Column("id", _WHOLE, primary_key=True, autoincrement=True),
    Column("time", BigInteger, nullable=False),
    Column("product", String(64), nullable=False),
    Column("model", String(64), nullable=False),
    Column("threshold", Float(53), nullable=False),
    Column("who", String(64), nullable=False),
    Column("reason", Text, nullable=False),
    Index("thresholds_product", "product", "model", "id"),
)

sinks = Table(
    "sinks",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("cursor", BigInteger, nullable=False),  # `id` of the last verdict that it got, or didn't want
    Column("time", BigInteger),  # when it got one; None: never
)

candidates = Table(
    "candidates",
    metadata,
    Column("id", _WHOLE, primary_key=True, autoincrement=True),
    Column("time", BigInteger, nullable=False),
    Column("product", String(64), nullable=False),
    Column("how", String(16), nullable=False),  # "fit" or "update"
    Column("who", String(64), nullable=False),
    Column("state", String(16), nullable=False),  # one of STATES
    Column("model", String(64)),  # fingerprint; None until there is one
    Column("report", Text, nullable=False),  # JSON: pictures, and what the comparison said
    Column("error", Text),
    Index("candidates_product", "product", "id"),
)
shadow_verdicts = Table(
    "shadow_verdicts",
    metadata,
    Column("id", _WHOLE, primary_key=True, autoincrement=True),
    Column("time", BigInteger, nullable=False),
    Column("candidate", _WHOLE, ForeignKey("candidates.id"), nullable=False),
    Column("uid", String(32), ForeignKey("verdicts.uid"), nullable=False),
    Column("label", String(16), nullable=False),  # one of LABELS
    Column("raw_score", Float(53)),
    Column("threshold", Float(53)),
    Column("error", Text),
    Index("shadow_verdicts_candidate", "candidate", "id"),
)
promotions = Table(
    "promotions",
    metadata,
    Column("id", _WHOLE, primary_key=True, autoincrement=True),
    Column("time", BigInteger, nullable=False),
    Column("product", String(64), nullable=False),
    Column("configured", String(64), nullable=False),  # fingerprint of the configured model that it stands in for
    Column("candidate", _WHOLE, ForeignKey("candidates.id")),  # None: the configured model itself
    Column("before", _WHOLE, ForeignKey("promotions.id")),  # to which one goes back; None: to the configured model
    Column("who", String(64), nullable=False),
    Index("promotions_product", "product", "id"),
)

STATES = ("running", "ready", "promoted", "discarded", "broken", "interrupted")
"""What may become of a candidate: one that is ready judges in the shadow."""
RUNNING, READY, PROMOTED, DISCARDED, BROKEN, INTERRUPTED = STATES

JUDGEMENTS = ("right", "false alarm", "missed")
"""What a person says of a verdict; the newest counts."""

NORMAL, ANOMALOUS, FAILED = LABELS = ("normal", "anomalous", "failed")
"""The three outcomes. "failed" is a part that could not be inspected."""
