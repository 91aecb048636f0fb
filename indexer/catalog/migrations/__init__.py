"""The catalog's schema over time, a file for each step in `versions/`, run by `database.migrate`; no alembic.ini."""
