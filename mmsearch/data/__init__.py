"""Data sets: captioned pictures, rendered scenes, token ids, augmented views."""
