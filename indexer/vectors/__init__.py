"""Nearest neighbours behind one Protocol: `base.py` says what holds, `exact.py` is the truth, `choose.py` picks."""
