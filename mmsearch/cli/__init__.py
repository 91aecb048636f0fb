"""The command line: parse, call `Library`, render. The only code that prints. Start at `app.py`."""
