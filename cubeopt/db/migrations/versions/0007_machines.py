"""What machines are told: how long workers wait for a claim's answer, and the outbox.

Revision 0007, after 0006.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

SCHEMA = "cubeopt"


def upgrade() -> None:
    zero = sa.text("0")
    for column in (
        sa.Column("lease_seconds", sa.Float(53)),
        sa.Column("claims", sa.BigInteger(), server_default=zero, nullable=False),
        sa.Column("claim_seconds", sa.Float(53), server_default=zero, nullable=False),
        sa.Column(
            "claim_buckets", ARRAY(sa.BigInteger()), server_default=sa.text("'{}'"), nullable=False
        ),
    ):
        op.add_column("workers", column, schema=SCHEMA)
    now = sa.text("clock_timestamp()")
    op.create_table(
        "outbox",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("event", sa.UUID(), server_default=sa.text("gen_random_uuid()"), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("study_id", sa.BigInteger()),
        sa.Column("study", sa.Text()),
        sa.Column("topic", sa.Text()),
        sa.Column("facts", JSONB(), nullable=False),
        sa.Column("body", sa.Text()),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("tries", sa.Integer(), server_default=zero, nullable=False),
        sa.Column("last_error", sa.Text()),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), server_default=now, nullable=False),
        sa.Column("ended_at", sa.DateTime(timezone=True)),
        sa.PrimaryKeyConstraint("id", name="outbox_pkey"),
        sa.UniqueConstraint("topic", name="outbox_topic_key"),
        sa.ForeignKeyConstraint(
            ["study_id"],
            [f"{SCHEMA}.studies.id"],
            name="outbox_study_id_fkey",
            ondelete="SET NULL",
        ),
        sa.CheckConstraint(
            "kind IN ('study_complete', 'study_failed', 'study_stopped', 'new_best', "
            "'worker_lost')",
            name="kind",
        ),
        sa.CheckConstraint(
            "state IN ('waiting', 'delivered', 'given_up', 'expired')", name="state"
        ),
        sa.CheckConstraint("(ended_at IS NULL) = (state = 'waiting')", name="end"),
        schema=SCHEMA,
    )
    waiting = sa.text("state = 'waiting'")
    op.create_index("outbox_waiting", "outbox", ["id"], schema=SCHEMA, postgresql_where=waiting)
    op.create_index("outbox_study", "outbox", ["study_id", "kind", "id"], schema=SCHEMA)


def downgrade() -> None:
    op.drop_table("outbox", schema=SCHEMA)
    for column in ("lease_seconds", "claims", "claim_seconds", "claim_buckets"):
        op.drop_column("workers", column, schema=SCHEMA)
