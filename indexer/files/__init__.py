"""What is on disk: scanning folders, excludes, file kinds by their first bytes, Unicode forms of names."""
