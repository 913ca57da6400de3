"""Search for cells: from a space of operations and edges to `genotype.json`.

Reading order, a room each: `space` (the candidates; logits to weights, the equations), `supernet` (all
candidates at once, mixed by those weights), `stages` (the parts of a method, and the one training loop),
`methods` (one file a paper, `darts` is the shortest; `registry` puts an operation search, a topology search
and a selection together), `run` (a whole search, its folder and its command), `explain` (analyses of a
completed search). `docs/search.md` says how to add a method and a space.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .run.command import SearchResult as SearchResult
    from .run.command import SeedsResult as SeedsResult
    from .run.command import search as search
else:

    def __getattr__(name: str) -> Any:
        """Import the search on first use: a plug-in's method is read where the extra is not installed."""
        if name not in ("SearchResult", "SeedsResult", "search"):
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(importlib.import_module(".run.command", __name__), name)
