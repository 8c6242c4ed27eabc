"""The journal of accepted parts, and the history of verdicts."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "accepted",
        sa.Column("uid", sa.String(32), primary_key=True),
        sa.Column("key", sa.String(32), unique=True),
        sa.Column("accepted", sa.BigInteger, nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("part", sa.String(256), nullable=False),
        sa.Column("product", sa.String(64), nullable=False),
        sa.Column("path", sa.Text),
    )
    op.create_table(
        "verdicts",
        sa.Column("id", _WHOLE, primary_key=True, autoincrement=True),
        sa.Column("uid", sa.String(32), nullable=False, unique=True),
        sa.Column("key", sa.String(32), unique=True),
        sa.Column("accepted", sa.BigInteger, nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("part", sa.String(256), nullable=False),
        sa.Column("product", sa.String(64), nullable=False),
        sa.Column("path", sa.Text),
        sa.Column("label", sa.String(16), nullable=False),
        sa.Column("raw_score", sa.Float(53)),
        sa.Column("score", sa.Float(53)),
        sa.Column("threshold", sa.Float(53)),
        sa.Column("pixel_threshold", sa.Float(53)),
        sa.Column("height", sa.Integer),
        sa.Column("width", sa.Integer),
        sa.Column("model", sa.String(64)),
        sa.Column("regions", sa.Text, nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.Column("error", sa.Text),
    )
    op.create_index("verdicts_time", "verdicts", ["time", "id"])
    op.create_index("verdicts_label", "verdicts", ["label", "time", "id"])
    op.create_index("verdicts_product", "verdicts", ["product", "time", "id"])
    op.create_index("verdicts_product_label", "verdicts", ["product", "label", "time", "id"])
    op.create_index("verdicts_part", "verdicts", ["part", "time", "id"])
