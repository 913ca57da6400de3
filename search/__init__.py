"""Searching for cells: from a space of operations and edges to `genotype.json`.

Reading order: `space` (what can be found), `relax` (logits to weights, the equations), `supernet` (all of it
at once, mixed by those weights), `discretise` (weights to a cell), `stages` (what a method is made of),
`steps` (what one step trains), `loop` (the one training loop), `dots` (a method). `config` holds the numbers,
`data` the images, `randomness` the seeds; `run` writes the folder of a run, `plots` draws it, `__main__` is
the command. `docs/search.md` says how to add a method.
"""
