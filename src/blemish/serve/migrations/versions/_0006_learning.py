"""Models that were learned from reviewed pictures, what they say in the shadow, and which were promoted."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

_WHOLE = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "candidates",
        sa.Column("id", _WHOLE, primary_key=True, autoincrement=True),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("product", sa.String(64), nullable=False),
        sa.Column("how", sa.String(16), nullable=False),
        sa.Column("who", sa.String(64), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("model", sa.String(64)),
        sa.Column("report", sa.Text, nullable=False),
        sa.Column("error", sa.Text),
    )
    op.create_index("candidates_product", "candidates", ["product", "id"])
    op.create_table(
        "shadow_verdicts",
        sa.Column("id", _WHOLE, primary_key=True, autoincrement=True),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("candidate", _WHOLE, sa.ForeignKey("candidates.id"), nullable=False),
        sa.Column("uid", sa.String(32), sa.ForeignKey("verdicts.uid"), nullable=False),
        sa.Column("label", sa.String(16), nullable=False),
        sa.Column("raw_score", sa.Float(53)),
        sa.Column("threshold", sa.Float(53)),
        sa.Column("error", sa.Text),
    )
    op.create_index("shadow_verdicts_candidate", "shadow_verdicts", ["candidate", "id"])
    op.create_table(
        "promotions",
        sa.Column("id", _WHOLE, primary_key=True, autoincrement=True),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("product", sa.String(64), nullable=False),
        sa.Column("configured", sa.String(64), nullable=False),
        sa.Column("candidate", _WHOLE, sa.ForeignKey("candidates.id")),
        sa.Column("before", _WHOLE, sa.ForeignKey("promotions.id")),
        sa.Column("who", sa.String(64), nullable=False),
    )
    op.create_index("promotions_product", "promotions", ["product", "id"])
