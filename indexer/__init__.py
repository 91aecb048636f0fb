"""State: files, rows, vectors. Start with `base/types.py` (the interface) and `ingest/ingest.py` (the overview)."""
