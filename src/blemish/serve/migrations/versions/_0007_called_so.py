"""An index that says which parts were ever called missed, or a false alarm."""

from alembic import op

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Makes the index."""
    op.create_index("feedback_judgement", "feedback", ["judgement", "uid"])
