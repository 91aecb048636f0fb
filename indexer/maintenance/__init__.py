"""Keeping a library sound: examine and mend, prune, relocate, status."""
