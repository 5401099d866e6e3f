"""Runs whose pack broke are suspects.

Revision 0002, after 0001.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

SCHEMA = "cubeopt"


def upgrade() -> None:
    op.add_column(
        "runs",
        sa.Column("suspect", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_column("runs", "suspect", schema=SCHEMA)
