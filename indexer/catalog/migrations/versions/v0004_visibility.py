"""`vectors.kind` is kept by triggers; what an interrupted run of an older version left behind is brought in step."""

from alembic import op

from indexer.catalog import visibility

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Nothing of what is there changes, but for kinds that do not follow."""
    visibility.create(op.get_bind())
    visibility.refresh(op.get_bind())


def downgrade() -> None:
    """The kinds stay as they are."""
    visibility.drop(op.get_bind())
