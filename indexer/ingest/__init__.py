"""The way in: scan, plan, load, encode, store. Start at `ingest.py`."""
