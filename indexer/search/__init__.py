"""The way out: from query vectors to hits. Start at `search.py`."""
