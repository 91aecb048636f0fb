"""One migration a file, oldest first by revision number."""
