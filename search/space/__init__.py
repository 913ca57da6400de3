"""What can be found: `space`, and those of the papers (`named`); `relax` (the equations), `discretise`.

`nasbench201_table` looks a cell of NAS-Bench-201 up.
"""
