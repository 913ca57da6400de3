"""The supernet: every candidate operation at once, mixed by weights that are an argument (Eq. 1, Eq. 8)."""
