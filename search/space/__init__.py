"""Search spaces: `space` (their types), `named` (those of the papers), `relax` (the equations), `discretise`.

`nasbench201_table` looks up a cell of NAS-Bench-201.
"""
