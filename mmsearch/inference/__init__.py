"""The model at run time, without torch where possible. Start at `load_model.py`."""
