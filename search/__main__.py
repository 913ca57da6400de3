"""Search a cell from the command line: `python -m dots_zoo.search dots --data digits --out runs/first`.

`main` is also `dots-zoo search`.
"""

import sys
from collections.abc import Sequence
from typing import Any

from accelerate import PartialState  # type: ignore[import-untyped]

from dots_zoo.data.load import load_data
from dots_zoo.genotype import to_text
from dots_zoo.kernels.malloc import keep_freed_memory
from dots_zoo.runtime.distributed import disconnecting
from dots_zoo.runtime.errors import DotsZooError

from .run.options import choose
from .run.run import search
from .run.seeds import line, search_seeds


@disconnecting()
def main(argv: Sequence[str] | None = None) -> None:
    """Search as `argv` says and print what was found. Raises DotsZooError where the input cannot be used."""
    keep_freed_memory()
    chosen = choose(argv)
    what = chosen.method, chosen.config, chosen.derivation, chosen.space, load_data(chosen.data), chosen.out
    how: dict[str, Any] = {"table": chosen.table, "resume": chosen.resume}
    how |= {"checkpoint_seconds": chosen.checkpoint_seconds}
    if chosen.seeds > 1:
        first = chosen.config.training.seed
        told = line(search_seeds(range(first, first + chosen.seeds), *what, **how), chosen.out)
    else:
        found = search(*what, **how)
        files = "genotype.json, report.html, run.json, config.yaml, metrics.jsonl, plots"
        told = f"{to_text(found)}\nwritten to {chosen.out}: {files}"
    if PartialState().is_main_process:
        print(told)


if __name__ == "__main__":
    try:
        main()
    except DotsZooError as error:
        print(f"dots-zoo search: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
