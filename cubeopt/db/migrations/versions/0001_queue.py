"""The queue: studies, trials, workers, runs, attempts, epochs."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

SCHEMA = "cubeopt"


def upgrade() -> None:
    op.create_table(
        "studies",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("spec", JSONB(), nullable=False),
        sa.Column("state", sa.Text(), server_default="running", nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=True),
        sa.Column("direction", sa.Text(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("dataset", sa.Text(), nullable=False),
        sa.Column("dataset_fingerprint", sa.Text(), nullable=False),
        sa.Column("dataset_rows", JSONB(), nullable=False),
        sa.Column("baselines", JSONB(), nullable=False),
        sa.Column("code_version", sa.Text(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "direction IN ('minimize', 'maximize')", name=op.f("studies_direction_check")
        ),
        sa.CheckConstraint(
            "state IN ('running', 'complete', 'stopped', 'failed')",
            name=op.f("studies_state_check"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("studies_pkey")),
        sa.UniqueConstraint("name", name=op.f("studies_name_key")),
        schema=SCHEMA,
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column(
            "heartbeat_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("state", sa.Text(), server_default="live", nullable=False),
        sa.Column("provenance", JSONB(), nullable=False),
        sa.CheckConstraint("state IN ('live', 'gone')", name=op.f("workers_state_check")),
        sa.PrimaryKeyConstraint("id", name=op.f("workers_pkey")),
        schema=SCHEMA,
    )
    op.create_index(
        "workers_live", "workers", ["id"], schema=SCHEMA, postgresql_where=sa.text("state = 'live'")
    )
    op.create_table(
        "trials",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("params", JSONB(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("mirrored_epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("told", sa.Boolean(), server_default=sa.text("false"), nullable=False),
        sa.Column("reason", JSONB(), nullable=True),
        sa.ForeignKeyConstraint(
            ["study_id"],
            ["cubeopt.studies.id"],
            name=op.f("trials_study_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("trials_pkey")),
        sa.UniqueConstraint("study_id", "number", name=op.f("trials_study_id_number_key")),
        schema=SCHEMA,
    )
    op.create_index(
        "trials_untold",
        "trials",
        ["study_id", "number"],
        schema=SCHEMA,
        postgresql_where=sa.text("NOT told"),
    )
    op.create_table(
        "runs",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("trial_id", sa.BigInteger(), nullable=False),
        sa.Column("study_id", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("spec", JSONB(), nullable=False),
        sa.Column("pack_key", sa.Text(), nullable=False),
        sa.Column("target_epochs", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), server_default="waiting", nullable=False),
        sa.Column("priority", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("width", sa.Integer(), nullable=True),
        sa.Column("token", sa.BigInteger(), server_default=sa.text("0"), nullable=False),
        sa.Column("worker_id", sa.BigInteger(), nullable=True),
        sa.Column("lease_expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("epoch", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.Column("test_value", sa.Float(precision=53), nullable=True),
        sa.Column("checkpoint", sa.Text(), nullable=True),
        sa.Column("checkpoint_epoch", sa.Integer(), nullable=True),
        sa.Column("failures", sa.Integer(), server_default=sa.text("0"), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "(state = 'running') = (worker_id IS NOT NULL) "
            "AND (state = 'running') = (lease_expires_at IS NOT NULL)",
            name=op.f("runs_lease_check"),
        ),
        sa.CheckConstraint("kind IN ('short', 'full')", name=op.f("runs_kind_check")),
        sa.CheckConstraint(
            "state IN ('waiting', 'running', 'complete', 'pruned', 'failed')",
            name=op.f("runs_state_check"),
        ),
        sa.CheckConstraint("target_epochs > 0", name=op.f("runs_target_epochs_check")),
        sa.CheckConstraint("width > 0", name=op.f("runs_width_check")),
        sa.ForeignKeyConstraint(
            ["study_id"],
            ["cubeopt.studies.id"],
            name=op.f("runs_study_id_fkey"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["trial_id"], ["cubeopt.trials.id"], name=op.f("runs_trial_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["worker_id"], ["cubeopt.workers.id"], name=op.f("runs_worker_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("runs_pkey")),
        sa.UniqueConstraint("trial_id", "kind", name=op.f("runs_trial_id_kind_key")),
        schema=SCHEMA,
    )
    op.create_index(
        "runs_running", "runs", ["id"], schema=SCHEMA, postgresql_where=sa.text("state = 'running'")
    )
    op.create_index("runs_study", "runs", ["study_id", "kind", "state"], schema=SCHEMA)
    op.create_index(
        "runs_waiting",
        "runs",
        [sa.text("priority DESC"), "id"],
        schema=SCHEMA,
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_index(
        "runs_waiting_pack",
        "runs",
        ["pack_key", sa.text("priority DESC"), "id"],
        schema=SCHEMA,
        postgresql_where=sa.text("state = 'waiting'"),
    )
    op.create_table(
        "attempts",
        sa.Column("id", sa.BigInteger(), sa.Identity(always=True), nullable=False),
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("worker_id", sa.BigInteger(), nullable=False),
        sa.Column(
            "started_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("from_epoch", sa.Integer(), nullable=False),
        sa.Column("end_class", sa.Text(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("device", sa.Text(), nullable=False),
        sa.Column("provenance", JSONB(), nullable=False),
        sa.CheckConstraint(
            "end_class IN ('done', 'pruned', 'preempted', 'lost', 'out_of_memory', 'diverged', "
            "'error')",
            name=op.f("attempts_end_class_check"),
        ),
        sa.CheckConstraint(
            "(ended_at IS NULL) = (end_class IS NULL)", name=op.f("attempts_end_check")
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["cubeopt.runs.id"], name=op.f("attempts_run_id_fkey"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["worker_id"], ["cubeopt.workers.id"], name=op.f("attempts_worker_id_fkey")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("attempts_pkey")),
        sa.UniqueConstraint("run_id", "token", name=op.f("attempts_run_id_token_key")),
        schema=SCHEMA,
    )
    op.create_table(
        "epochs",
        sa.Column("run_id", sa.BigInteger(), nullable=False),
        sa.Column("epoch", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("token", sa.BigInteger(), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.Column("metrics", JSONB(), nullable=False),
        sa.Column(
            "created_at",
            sa.DateTime(timezone=True),
            server_default=sa.text("clock_timestamp()"),
            nullable=False,
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["cubeopt.runs.id"], name=op.f("epochs_run_id_fkey"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "epoch", name=op.f("epochs_pkey")),
        schema=SCHEMA,
    )


def downgrade() -> None:
    op.drop_table("epochs", schema=SCHEMA)
    op.drop_table("attempts", schema=SCHEMA)
    op.drop_table("runs", schema=SCHEMA)
    op.drop_table("trials", schema=SCHEMA)
    op.drop_table("workers", schema=SCHEMA)
    op.drop_table("studies", schema=SCHEMA)
