"""Files on disk: scanning folders, exclude patterns, file kinds by their first bytes, Unicode forms of names."""
