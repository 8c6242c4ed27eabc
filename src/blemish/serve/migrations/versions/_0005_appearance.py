"""Brightness and sharpness of each picture."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Adds the columns; older verdicts have none."""
    op.add_column("verdicts", sa.Column("brightness", sa.Float(53)))
    op.add_column("verdicts", sa.Column("sharpness", sa.Float(53)))
