"""Search a cell from the command line: `python -m dots_zoo.search dots --data digits --out runs/first`.

`main` is also `dots-zoo search`.
"""

import sys
from collections.abc import Sequence

from dots_zoo.allocator import keep_freed_memory
from dots_zoo.datasets import load_data
from dots_zoo.errors import DotsZooError
from dots_zoo.genotype import Genotype, to_text

from .options import choose
from .run import search


def main(argv: Sequence[str] | None = None) -> Genotype:
    """Search as `argv` says and print what was found. Raises DotsZooError where the input cannot be used."""
    keep_freed_memory()
    chosen = choose(argv)
    data = load_data(chosen.data)
    found = search(
        chosen.method,
        chosen.config,
        chosen.derivation,
        chosen.space,
        data,
        chosen.out,
        table=chosen.table,
        resume=chosen.resume,
        checkpoint_seconds=chosen.checkpoint_seconds,
    )
    print(to_text(found))
    print(f"written to {chosen.out}: genotype.json, run.json, config.yaml, metrics.jsonl, plots")
    return found


if __name__ == "__main__":
    try:
        main()
    except DotsZooError as error:
        print(f"dots-zoo search: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
