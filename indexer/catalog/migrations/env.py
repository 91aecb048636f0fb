"""Alembic's way in: the connection comes from `database.migrate`, inside a transaction that also covers the DDL.

In: `config.attributes["connection"]`. Out: a database at the newest revision. Next: `versions/`.
"""

from alembic import context

from indexer.catalog.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
