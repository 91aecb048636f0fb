"""What a model is worth: recall, bounds, zero-shot, phrasing, fusion, uncertainty, tables."""
