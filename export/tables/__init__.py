"""The papers' cost tables (`paper_tables`, as printed) beside our counts and latency (`tables`, `page`)."""
