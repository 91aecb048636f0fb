"""A library as a copy or as an archive, and back."""
