"""The catalog's schema over time, a file for each step in `versions/`. Run by `database.migrate`, without an alembic.ini."""
