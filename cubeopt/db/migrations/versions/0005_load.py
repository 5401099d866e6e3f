"""Wishes and samplers' notes in our tables; indexes for what must not grow with the trials.

Revision 0005, after 0004.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0005"
down_revision = "0004"
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
    op.add_column(
        "epochs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        schema=SCHEMA,
    )
    op.create_index(
        "epochs_standing",
        "epochs",
        ["epoch", "id"],
        schema=SCHEMA,
        postgresql_where=sa.text("value IS NOT NULL"),
    )
    op.create_index("runs_ended", "runs", ["study_id", "finished_at", "id"], schema=SCHEMA)


def downgrade() -> None:
    op.drop_index("runs_ended", "runs", schema=SCHEMA)
    op.drop_index("epochs_standing", "epochs", schema=SCHEMA)
    op.drop_column("epochs", "id", schema=SCHEMA)
    op.execute("DELETE FROM cubeopt.trials WHERE NOT drawn")
    op.drop_index("trials_wished", "trials", schema=SCHEMA)
    op.execute("UPDATE cubeopt.trials SET mirrored_epoch = 0 WHERE mirrored_epoch < 0")
    op.alter_column("trials", "mirrored_epoch", server_default=sa.text("0"), schema=SCHEMA)
    op.drop_column("trials", "notes", schema=SCHEMA)
    op.drop_column("trials", "drawn", schema=SCHEMA)
