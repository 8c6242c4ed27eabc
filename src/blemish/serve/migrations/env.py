"""Alembic's entry: brings the schema of the connection that `blemish.serve.database.migrate` hands over up to date."""

from alembic import context

from blemish.serve.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
with context.begin_transaction():
    context.run_migrations()
