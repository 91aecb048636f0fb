"""A query becomes one vector, from words, a picture or both (`encode.py`); a stored hit becomes a `Hit` (`hits.py`)."""
