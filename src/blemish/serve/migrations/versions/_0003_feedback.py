"""What people say of verdicts, what they shall look at, and the thresholds they set."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

_WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "feedback",
        sa.Column("id", _WHOLE, primary_key=True, autoincrement=True),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("uid", sa.String(32), sa.ForeignKey("verdicts.uid"), nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("judgement", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(64), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
    )
    op.create_index("feedback_uid", "feedback", ["uid", "id"])
    op.create_table(
        "review",
        sa.Column("id", _WHOLE, primary_key=True, autoincrement=True),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("uid", sa.String(32), sa.ForeignKey("verdicts.uid"), nullable=False, unique=True),
        sa.Column("why", sa.String(16), nullable=False),
    )
    op.create_index("review_time", "review", ["time"])
    op.create_table(
        "thresholds",
        sa.Column("id", _WHOLE, primary_key=True, autoincrement=True),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("product", sa.String(64), nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("threshold", sa.Float(53), nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
    )
    op.create_index("thresholds_product", "thresholds", ["product", "model", "id"])
