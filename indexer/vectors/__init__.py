"""Nearest neighbours behind one Protocol: `protocol.py` says what holds, `exact.py` is the truth, `choose.py` picks."""
