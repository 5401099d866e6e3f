"""Alembic's entry: run the revisions on the connection that cubeopt.db.engine hands over."""

from alembic import context

from cubeopt.db.engine import VERSION_TABLE
from cubeopt.db.tables import SCHEMA, metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    include_schemas=True,
    version_table=VERSION_TABLE,
    version_table_schema=SCHEMA,
)
with context.begin_transaction():
    context.run_migrations()
