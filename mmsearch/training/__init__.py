"""Training, measuring and exporting models. Start at `run.py`; nothing here is imported by a search."""
