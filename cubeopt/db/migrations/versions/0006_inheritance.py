"""What a study inherits: trials of earlier studies, and its own files before they were revised.

Revision 0006, after 0005.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

SCHEMA = "cubeopt"
_STATES = "state IN ('waiting', 'running', 'complete', 'pruned', 'failed')"


def upgrade() -> None:
    op.create_table(
        "priors",
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("place", sa.Integer(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("spec", JSONB(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("value", sa.Float(53)),
        sa.Column("values", JSONB(), nullable=False),
        sa.Column("metrics", JSONB(), nullable=False),
        sa.PrimaryKeyConstraint("study_id", "place", name="priors_pkey"),
        sa.ForeignKeyConstraint(
            ["study_id"],
            [f"{SCHEMA}.studies.id"],
            name="priors_study_id_fkey",
            ondelete="CASCADE",
        ),
        sa.CheckConstraint(_STATES, name="state"),
        schema=SCHEMA,
    )
    op.create_table(
        "revisions",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("spec", JSONB(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.PrimaryKeyConstraint("id", name="revisions_pkey"),
        sa.ForeignKeyConstraint(
            ["study_id"],
            [f"{SCHEMA}.studies.id"],
            name="revisions_study_id_fkey",
            ondelete="CASCADE",
        ),
        schema=SCHEMA,
    )
    op.create_index("revisions_study", "revisions", ["study_id", "id"], schema=SCHEMA)


def downgrade() -> None:
    op.drop_table("revisions", schema=SCHEMA)
    op.drop_table("priors", schema=SCHEMA)
