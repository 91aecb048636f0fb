"""What is known of an index file gets a column: its form, its measured recall, the matrix beside it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Files written before have no facts: they are made again from the catalog, without encoding anything."""
    with op.batch_alter_table("generations") as batch:
        batch.add_column(sa.Column("facts", sa.Text(), nullable=False, server_default="{}"))


def downgrade() -> None:
    """The files stay; only what was measured of them is forgotten."""
    with op.batch_alter_table("generations") as batch:
        batch.drop_column("facts")
