"""The catalog's schema over time, one file a step under `versions/`. Run by `catalog.migrate`; needs no alembic.ini."""
