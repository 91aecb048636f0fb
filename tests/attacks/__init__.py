"""Attacks on a library, a model, an archive, a folder, all given by somebody: what each may do is nothing."""
