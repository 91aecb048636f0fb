"""From the bytes of one file to pixels or text; what may crash runs in a sandbox process."""
