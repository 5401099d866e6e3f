"""Our tables, not Optuna's, have what is wished for and what samplers note beside their trials.

Revision 0006, after 0003.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEMA = "cubeopt"


def upgrade() -> None:
    op.add_column(
        "trials",
        sa.Column("drawn", sa.Boolean(), server_default=sa.text("true"), nullable=False),
        schema=SCHEMA,
    )
    op.add_column(
        "trials",
        sa.Column("notes", JSONB(), server_default=sa.text("'{}'"), nullable=False),
        schema=SCHEMA,
    )
    op.alter_column("trials", "mirrored_epoch", server_default=sa.text("-1"), schema=SCHEMA)
    op.create_index(
        "trials_wished",
        "trials",
        ["study_id", "number"],
        schema=SCHEMA,
        postgresql_where=sa.text("NOT drawn"),
    )


def downgrade() -> None:
    op.execute("DELETE FROM cubeopt.trials WHERE NOT drawn")
    op.drop_index("trials_wished", "trials", schema=SCHEMA)
    op.execute("UPDATE cubeopt.trials SET mirrored_epoch = 0 WHERE mirrored_epoch < 0")
    op.alter_column("trials", "mirrored_epoch", server_default=sa.text("0"), schema=SCHEMA)
    op.drop_column("trials", "notes", schema=SCHEMA)
    op.drop_column("trials", "drawn", schema=SCHEMA)
