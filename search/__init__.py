"""Searching for cells: from a space of operations and edges to `genotype.json`.

Reading order, a room each: `space` (what can be found; logits to weights, the equations), `supernet` (all
of it at once, mixed by those weights), `stages` (what a method is made of, and the one training loop),
`methods` (one file a paper, `darts` is the shortest; `registry` puts an operation search, a topology search
and a selection together), `run` (a whole search, its folder and its command), `explain` (a look at a
completed search). `docs/search.md` says how to add a method and a space.
"""
