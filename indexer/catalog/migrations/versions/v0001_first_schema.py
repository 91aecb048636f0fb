"""The first schema: roots, assets, captions, models, vectors, generations, notices and the library's one row."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

Id = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """An empty catalog."""
    op.create_table(
        "models",
        sa.Column("id", Id, nullable=False),
        sa.Column("fingerprint", sa.String(length=128), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("dim", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_models")),
        sa.UniqueConstraint("fingerprint", name=op.f("uq_models_fingerprint")),
    )
    op.create_table(
        "roots",
        sa.Column("id", Id, nullable=False),
        sa.Column("path", sa.LargeBinary(), nullable=False),
        sa.Column("device", sa.BigInteger(), nullable=True),
        sa.Column("captions_seen", sa.String(length=64), nullable=True),
        sa.Column("pairing_due", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_roots")),
        sa.UniqueConstraint("path", name=op.f("uq_roots_path")),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "assets",
        sa.Column("id", Id, nullable=False),
        sa.Column("root_id", Id, nullable=False),
        sa.Column("rel_path", sa.LargeBinary(), nullable=False),
        sa.Column("modality", sa.String(length=8), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("mtime_ns", sa.BigInteger(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=True),
        sa.Column("width_px", sa.Integer(), nullable=True),
        sa.Column("height_px", sa.Integer(), nullable=True),
        sa.Column("taken_at", sa.DateTime(), nullable=True),
        sa.Column("camera", sa.Text(), nullable=True),
        sa.Column("latitude_deg", sa.Float(), nullable=True),
        sa.Column("longitude_deg", sa.Float(), nullable=True),
        sa.Column("excerpt", sa.Text(), nullable=True),
        sa.Column("seen_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["root_id"], ["roots.id"], name=op.f("fk_assets_root_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_assets")),
        sa.UniqueConstraint("root_id", "rel_path", name=op.f("uq_assets_root_id_rel_path")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_assets_content_hash"), "assets", ["content_hash"], unique=False)
    op.create_table(
        "generations",
        sa.Column("generation", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("model_id", Id, nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("count", sa.BigInteger(), nullable=False),
        sa.Column("dim", sa.Integer(), nullable=False),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sa.Column("entries", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_generations_model_id")),
        sa.PrimaryKeyConstraint("generation", name=op.f("pk_generations")),
    )
    op.create_table(
        "library",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model_id", Id, nullable=True),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sa.Column("generation", sa.BigInteger(), nullable=False),
        sa.Column("indexed_at", sa.DateTime(), nullable=True),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_library_model_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_library")),
    )
    op.create_table(
        "notices",
        sa.Column("id", Id, nullable=False),
        sa.Column("root_id", Id, nullable=False),
        sa.Column("rel_path", sa.LargeBinary(), nullable=False),
        sa.Column("source", sa.String(length=8), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("noticed_at", sa.DateTime(), nullable=False),
        sa.ForeignKeyConstraint(["root_id"], ["roots.id"], name=op.f("fk_notices_root_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_notices")),
    )
    op.create_index(op.f("ix_notices_root_id"), "notices", ["root_id"], unique=False)
    op.create_table(
        "captions",
        sa.Column("id", Id, nullable=False),
        sa.Column("asset_id", Id, nullable=False),
        sa.Column("text_asset_id", Id, nullable=True),
        sa.Column("source", sa.LargeBinary(), nullable=True),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("text_hash", sa.LargeBinary(), nullable=True),
        sa.Column("live", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(["asset_id"], ["assets.id"], name=op.f("fk_captions_asset_id")),
        sa.ForeignKeyConstraint(["text_asset_id"], ["assets.id"], name=op.f("fk_captions_text_asset_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_captions")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_captions_asset_id"), "captions", ["asset_id"], unique=False)
    op.create_index(op.f("ix_captions_text_asset_id"), "captions", ["text_asset_id"], unique=False)
    op.create_index(op.f("ix_captions_text_hash"), "captions", ["text_hash"], unique=False)
    op.create_table(
        "vectors",
        sa.Column("id", Id, nullable=False),
        sa.Column("model_id", Id, nullable=False),
        sa.Column("asset_id", Id, nullable=False),
        sa.Column("caption_id", Id, nullable=True),
        sa.Column("role", sa.String(length=8), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("change", sa.BigInteger(), nullable=False),
        sa.Column("mu", sa.LargeBinary(), nullable=True),
        sa.Column("logvar", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["asset_id"], ["assets.id"], name=op.f("fk_vectors_asset_id")),
        sa.ForeignKeyConstraint(["caption_id"], ["captions.id"], name=op.f("fk_vectors_caption_id")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_vectors_model_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_vectors")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        op.f("ix_vectors_asset_id_model_id_role"), "vectors", ["asset_id", "model_id", "role"], unique=False
    )
    op.create_index(op.f("ix_vectors_caption_id_model_id"), "vectors", ["caption_id", "model_id"], unique=False)
    op.create_index(op.f("ix_vectors_change"), "vectors", ["change"], unique=False)
    library = sa.table("library", sa.column("id"), sa.column("change"), sa.column("generation"))
    op.execute(library.insert().values(id=1, change=0, generation=0))


def downgrade() -> None:
    """No catalog."""
    for table in ("vectors", "captions", "notices", "library", "generations", "assets", "roots", "models"):
        op.drop_table(table)
