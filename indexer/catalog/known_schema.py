"""The schema that each migration leaves, as one digest for each table, index and trigger.

`sqlite_master` holds the statements that made a catalog, and SQLite obeys them: a catalog of somebody else is used only
when they are ours. A search compares them without importing the migrations, which take half a second.

In: one statement of a schema. Out: its digest; what is expected, by revision. A new migration adds a block here and its
number; `test_known_schema.py` says which lines, and compares all of them with what the migrations make.
Next: `../migrations/`.
"""

from __future__ import annotations

import hashlib
from typing import Final

SCHEMA_REVISION: Final = "0004"  # the number of the newest migration

Object = tuple[str, str, str]  # type, name, table: the first columns of sqlite_master
Schema = dict[Object, str]  # the digest of the statement that made each


def digest(sql: object) -> str:
    """BLAKE2 of a statement, whatever the white space in it; '-' for none, as for the index of a constraint."""
    if not isinstance(sql, str):
        return "-" if sql is None else "?"
    words = sql.encode().split()  # bytes know no white space but ASCII's, as SQLite
    return hashlib.blake2b(b" ".join(words), digest_size=16).hexdigest()


_STEPS: Final = {  # what each revision adds to the one before, or changes
    "0001": """
        index ix_assets_content_hash assets 9947e8845c7b7c0c06c4aee340c901db
        index ix_captions_asset_id captions e435311b9c21ce0965aa912417ca65ff
        index ix_captions_text_asset_id captions 0afa7688c9028552940c4fa807e76360
        index ix_captions_text_hash captions 253e701648c8cb9ca08dded67a1dfa70
        index ix_notices_root_id notices 3de51425ee6a1dd06b84924bbe1d847f
        index ix_vectors_asset_id_model_id_role vectors 6bca1a6c2a2aa40e90a4536c23a61ff8
        index ix_vectors_caption_id_model_id vectors 46f906ebeb66532d091338879e7ce9af
        index ix_vectors_change vectors e27047478546beb6cb47202c91a0d7d0
        index sqlite_autoindex_alembic_version_1 alembic_version -
        index sqlite_autoindex_assets_1 assets -
        index sqlite_autoindex_generations_1 generations -
        index sqlite_autoindex_models_1 models -
        index sqlite_autoindex_roots_1 roots -
        table alembic_version alembic_version 2573a2bbf4e1286482f680bacfa35da3
        table assets assets d3a6fe93de33632445024d6deb096bae
        table captions captions caf7f6c1e26ea7eafcce035afbf3967b
        table generations generations 63ca4c801c5eef71e83bdbc88dcd9100
        table library library 5903a274b8d2b2ae88f14e17b483f6de
        table models models 12bd79bec125aa6153a01440cee561fd
        table notices notices 9faf71bc3aa3dcb51895974514e57037
        table roots roots 7001c492ceb88cec1d623ace241c06b8
        table sqlite_sequence sqlite_sequence 64555dab474ba2a34e23e68b0ccedee4
        table vectors vectors f0dee42071c5ed0be4b660019021eafd
    """,
    "0002": """
        index ix_about_asset_id about 1166a3c8f6244e412682c89724f168c7
        index ix_frames_asset_id frames c8b4766492c51ef1482a8df8d3f5c15e
        table about about a1ab91af97f8cbcf0cf50cd9e4b56b39
        table frames frames b4228a1b2ea23fb0864e128973773422
    """,
    "0003": """
        table generations generations 347a62b02af608cf0cf227eaa9736d78
    """,
    "0004": """
        trigger kind_by_caption captions 1c1af9cc16de8b34679cc6ab5a3077aa
        trigger kind_by_state assets d9c02cca87e3b5e4d5ac9981dd0de162
        trigger kind_of_fused vectors 14f3be2035caef3647adb89e13545dc8
        trigger kind_of_own vectors 70fdec2bb421499c4983b7d43f548466
        trigger kind_of_vector vectors ed8d8b2a1964abac0e1e01943b74d07d
        trigger kind_with_caption captions 843290eb081f49eb66e84b64af0db3d4
        trigger kind_without_caption captions d3a8ea206acc1d882da4745302f0274e
        trigger kind_without_fused vectors 6276dc0a2ae0afd9c7f14008d20c1e75
    """,
}


def _known() -> dict[str, Schema]:
    known: dict[str, Schema] = {}
    schema: Schema = {}
    for revision, lines in _STEPS.items():
        words = [line.split() for line in lines.split("\n") if line.strip()]
        schema = schema | {(kind, name, table): made_by for kind, name, table, made_by in words}
        known[revision] = schema
    return known


KNOWN: Final = _known()
OPTIONAL: Final = {  # what ANALYZE leaves, which other programs may run
    ("table", "sqlite_stat1", "sqlite_stat1"): digest("CREATE TABLE sqlite_stat1(tbl,idx,stat)"),
    ("table", "sqlite_stat4", "sqlite_stat4"): digest("CREATE TABLE sqlite_stat4(tbl,idx,neq,nlt,ndlt,sample)"),
}
