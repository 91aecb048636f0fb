"""Keeping a library sound: doctor, repair, prune, relocate, status."""
