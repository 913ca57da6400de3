"""One file per paper, and the table of methods (`registry`). `darts` is the shortest; start there."""
