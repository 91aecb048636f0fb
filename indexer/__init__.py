"""State: files, rows, vectors. Start with `base/types.py` (the border) and `ingest/ingest.py` (the table of contents)."""
