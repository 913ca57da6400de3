"""Everything that computes the same in fewer passes over memory, on a CPU."""
