"""Searching for cells: from a space of operations and edges to `genotype.json`.

Reading order: `space` (what can be found) and `spaces` (those of the papers), `relax` (logits to weights, the
equations), `supernet` (all of it at once, mixed by those weights: Eq. 1, Eq. 8), `discretise` (weights to a
cell), `stages` (what a method is made of), `begin` (how a stage begins, and decisions), `steps` (what one
step trains), `loop` (the one training loop), `operation` (what operation searches share), `darts` (the
shortest method). `topology` is the second half of DOTS, `darts_pt` the selection, `methods` puts the three
together. `config` holds the numbers that all share, `data` the halves, `validation` the supernet's accuracy;
`choose_kernels` decides whether kernels pay, `run` writes the folder of a run, `plots` draws it, `lookup`
asks NAS-Bench-201, `options` and `__main__` are the command. `explain` looks at a search that has ended
(`finished` reads it back), a file an analysis.
`docs/search.md` says how to add a method.
"""
