"""Studies can be paused and know since when they are what they are; workers can be drained.

Revision 0003, after 0002.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SCHEMA = "cubeopt"


def upgrade() -> None:
    now = sa.text("clock_timestamp()")
    moment = sa.DateTime(timezone=True)
    op.add_column(
        "studies",
        sa.Column("state_since", moment, server_default=now, nullable=False),
        schema=SCHEMA,
    )
    # What failed before counts for the circuit breaker as it did.
    op.execute("UPDATE cubeopt.studies SET state_since = coalesce(finished_at, created_at)")
    op.add_column("workers", sa.Column("drain_asked_at", moment), schema=SCHEMA)
    _allow("'running', 'paused', 'complete', 'stopped', 'failed'")


def downgrade() -> None:
    op.execute("UPDATE cubeopt.studies SET state = 'stopped' WHERE state = 'paused'")
    _allow("'running', 'complete', 'stopped', 'failed'")
    op.drop_column("workers", "drain_asked_at", schema=SCHEMA)
    op.drop_column("studies", "state_since", schema=SCHEMA)


def _allow(states: str) -> None:
    name = op.f("studies_state_check")
    op.drop_constraint(name, "studies", schema=SCHEMA)
    op.create_check_constraint(name, "studies", f"state IN ({states})", schema=SCHEMA)
