"""State: files, rows, vectors. Start with `types.py` (the border) and `ingest.py` (the table of contents)."""
