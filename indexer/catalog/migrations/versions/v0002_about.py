"""What pictures and their sidecars say, and the frames of videos, get tables; nothing of what is there changes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """An empty table: the next run reads the files that have no row, without encoding them again."""
    op.create_table(
        "about",
        sa.Column("id", Id, nullable=False),
        sa.Column("asset_id", Id, nullable=False),
        sa.Column("source", sa.LargeBinary(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=True),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=True),
        sa.Column("taken_at", sa.DateTime(), nullable=True),
        sa.Column("camera", sa.Text(), nullable=True),
        sa.Column("lens", sa.Text(), nullable=True),
        sa.Column("latitude_deg", sa.Float(), nullable=True),
        sa.Column("longitude_deg", sa.Float(), nullable=True),
        sa.Column("title", sa.Text(), nullable=True),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("keywords", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["asset_id"], ["assets.id"], name=op.f("fk_about_asset_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_about")),
    )
    op.create_index(op.f("ix_about_asset_id"), "about", ["asset_id"], unique=False)
    op.create_table(
        "frames",
        sa.Column("id", Id, nullable=False),
        sa.Column("asset_id", Id, nullable=False),
        sa.Column("model_id", Id, nullable=False),
        sa.Column("time_ms", sa.BigInteger(), nullable=False),
        sa.Column("mu", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["asset_id"], ["assets.id"], name=op.f("fk_frames_asset_id"), ondelete="CASCADE"),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_frames_model_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_frames")),
    )
    op.create_index(op.f("ix_frames_asset_id"), "frames", ["asset_id"], unique=False)


def downgrade() -> None:
    """What was read is in the files still."""
    op.drop_table("frames")
    op.drop_table("about")
