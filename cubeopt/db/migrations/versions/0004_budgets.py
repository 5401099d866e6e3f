"""A promoted trial may have full runs over several seeds; studies know how long they ran.

Revision 0004, after 0003.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

SCHEMA = "cubeopt"


def upgrade() -> None:
    op.add_column(
        "runs",
        sa.Column("replicate", sa.Integer(), server_default=sa.text("0"), nullable=False),
        schema=SCHEMA,
    )
    _unique(["trial_id", "kind"], ["trial_id", "kind", "replicate"])
    op.create_check_constraint(
        op.f("runs_replicate_check"),
        "runs",
        "replicate = 0 OR replicate > 0 AND kind = 'full'",
        schema=SCHEMA,
    )
    op.add_column(
        "studies",
        sa.Column("ran_seconds", sa.Float(53), server_default=sa.text("0"), nullable=False),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_column("studies", "ran_seconds", schema=SCHEMA)
    op.execute("DELETE FROM cubeopt.runs WHERE replicate > 0")
    op.drop_constraint(op.f("runs_replicate_check"), "runs", schema=SCHEMA)
    _unique(["trial_id", "kind", "replicate"], ["trial_id", "kind"])
    op.drop_column("runs", "replicate", schema=SCHEMA)


def _unique(before: list[str], after: list[str]) -> None:
    op.drop_constraint(op.f(f"runs_{'_'.join(before)}_key"), "runs", schema=SCHEMA)
    op.create_unique_constraint(op.f(f"runs_{'_'.join(after)}_key"), "runs", after, schema=SCHEMA)
