"""The same search with several seeds, to separate the effect of the method from that of the seed.

Source: NAS evaluation is frustratingly hard (Yang et al., ICLR 2020), Sec. 3: a single search says little.
"""

import itertools
import json
import statistics
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from accelerate import Accelerator  # type: ignore[import-untyped]

from dots_zoo.data.datasets import Data
from dots_zoo.genotype import Genotype
from dots_zoo.runtime.atomic_write import write_file
from dots_zoo.runtime.distributed import processes_of
from dots_zoo.runtime.run_folder import check_folder, holds, is_empty

from ..methods.registry import Derivation
from ..space.space import SearchSpace
from .run import run_search


def search_seeds(
    seeds: Sequence[int],
    method: str,
    config: Any,
    derivation: Derivation,
    space: SearchSpace | str,
    data: Data,
    out: Path,
    **options: Any,
) -> dict[str, Any]:
    """Search with every seed, each into `out`/seedN; write and return the contents of `out`/seeds.json.

    The arguments are those of `run_search`. In the result, `figures` holds mean and standard deviation (of a
    sample) over the searches, for every figure of the last epoch; `edges_agree` is explained in `agreement`.
    """
    processes = processes_of(Accelerator(mixed_precision=config.training.precision))
    check = partial(check_folder, out, "search --seeds", resume=options.get("resume", False))
    processes.first_does(partial(check, holds_run=_holds_searches))
    folders = [out / f"seed{seed}" for seed in seeds]
    genotypes = []
    for seed, folder in zip(seeds, folders, strict=True):
        seeded = replace(config, training=replace(config.training, seed=seed))
        genotypes.append(
            run_search(method, seeded, derivation, space, data, folder, siblings=folders, **options)
        )
    figures = [genotype.provenance["metrics"] for genotype in genotypes]
    common = [name for name in figures[0] if all(name in row for row in figures)]
    summary = {
        "schema": 1,
        "kind": "seeds",
        "method": method,
        "seeds": list(seeds),
        "figures": {name: spread([row[name] for row in figures]) for name in common},
        "edges_agree": agreement(genotypes),
        "runs": [f"seed{seed}" for seed in seeds],
    }
    if processes.first:
        write_file(out / "seeds.json", json.dumps(summary, indent=2).encode())
    return summary


def _holds_searches(out: Path) -> bool:
    """Return True if a folder holds searches of several seeds, or the first of them, which has just begun."""
    folders = [path for path in out.glob("seed[0-9]*") if path.is_dir()]
    return any(holds(folder, "search") or is_empty(folder) for folder in folders)


def spread(values: Sequence[float]) -> dict[str, float]:
    """Return mean and standard deviation of a sample of two or more."""
    return {"mean": statistics.mean(values), "std": statistics.stdev(values)}


def agreement(genotypes: Sequence[Genotype]) -> float:
    """Return the mean share of edges that two genotypes have in common; 1 where all are the same.

    An edge is cell type, node, input and operation; the mean is over all ordered pairs of genotypes, each
    share over the edges of the first.
    """
    edges = [
        {
            (cell_type, edge.node, edge.input, edge.op)
            for cell_type, cell in genotype.cells.items()
            for edge in cell.edges
        }
        for genotype in genotypes
    ]
    shares = [len(one & other) / len(one) for one, other in itertools.permutations(edges, 2)]
    return statistics.mean(shares)


def line(summary: dict[str, Any], out: Path) -> str:
    """Summarise the searches in one line."""
    shown = [
        f"{name} {value['mean']:.3f} +- {value['std']:.3f}"
        for name, value in summary["figures"].items()
        if name in ("loss", "accuracy", "validation_accuracy") or name.startswith("table.")
    ]
    return (
        f"{len(summary['seeds'])} searches: {', '.join(shown)}; two of them agree in "
        f"{100 * summary['edges_agree']:.0f} % of their edges; written to {out / 'seeds.json'}"
    )
