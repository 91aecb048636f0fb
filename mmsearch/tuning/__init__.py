"""A library's model fitted further on the person's own captions."""
