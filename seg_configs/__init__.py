"""MMSegmentation configs (data only)."""
