"""MMDetection configs (data only)."""
