"""A search as a folder: train through a method's stages and write what was found, how, and how it went.

The folder holds `config.yaml` (a search with `--config` of it is the same search), `metrics.jsonl` (a line an
epoch: figures, weights), `tensorboard/`, `genotypes/` (the cell after every epoch), `plots/`, `genotype.json`
and `run.json`. Every file but the log is whole or absent.
"""

import dataclasses
import hashlib
import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter

import dots_zoo
from dots_zoo.datasets import Data
from dots_zoo.errors import DotsZooError
from dots_zoo.files import write_file
from dots_zoo.genotype import Genotype, save_genotype
from dots_zoo.surroundings import surroundings

from .lookup import find, read_table
from .loop import run_stages
from .methods import Derivation, plan
from .plots import plot_weights
from .space import SearchSpace
from .spaces import named_space
from .stages import Epoch


def search(
    method: str,
    config: Any,
    derivation: Derivation,
    space: SearchSpace | str,
    data: Data,
    out: Path,
    *,
    table: Path | None = None,
    progress: bool = True,
) -> Genotype:
    """Search a cell in a space, or in one of `spaces.NAMES`, write the run into `out`, return what was found.

    config: of the method, `METHODS[method].config`. table: of NAS-Bench-201, in which the cell of every epoch
    is looked up (`lookup.py`). Raises DotsZooError where `out` already holds something,
    the configuration cannot be used, or a loss is not finite.
    """
    searched = named_space(space) if isinstance(space, str) else space
    stages = plan(method, config, derivation, searched)
    if table is not None and searched.family != "nasbench201":
        raise DotsZooError(f"table: expected the space S6, whose cells it holds, got {space}")
    rows = None if table is None else read_table(table)
    settings = {"space": space} if isinstance(space, str) else {}
    settings |= {**data.options, **dataclasses.asdict(derivation), **dataclasses.asdict(config)}
    identity = json.dumps({"method": method, **settings}, sort_keys=True)
    provenance = {
        "method": method,
        "dataset": data.name,
        "origin": f"dots_zoo {dots_zoo.__version__}",
        "seed": config.training.seed,
        "config_sha256": hashlib.sha256(identity.encode()).hexdigest(),
    }
    epochs = run_stages(stages, config.training, data, progress=progress)
    _make_folder(out)
    plain = json.loads(json.dumps(settings))  # tuples as lists
    header = f"# dots-zoo search {method} --config config.yaml --out FOLDER\n"
    write_file(out / "config.yaml", (header + yaml.safe_dump(plain, sort_keys=False)).encode())
    began = time.perf_counter()
    with (out / "metrics.jsonl").open("w") as log, SummaryWriter(str(out / "tensorboard")) as board:
        for number, epoch in enumerate(epochs):
            name = f"{method}_{data.name}_seed{config.training.seed}"
            found = Genotype(name, searched.family, epoch.cells)
            figures = dict(epoch.figures)
            if table is not None and rows is not None:
                figures |= {f"table.{key}": value for key, value in find(rows, found, table).items()}
            log.write(json.dumps(_line(epoch, figures)) + "\n")
            log.flush()
            for key, value in figures.items():
                board.add_scalar(key, value, epoch.epoch)
            found = dataclasses.replace(found, provenance={**provenance, "metrics": figures})
            save_genotype(found, out / "genotypes" / f"{number:03d}.json")
    plot_weights(out / "metrics.jsonl", out / "plots")
    save_genotype(found, out / "genotype.json")
    run = _facts(provenance, time.perf_counter() - began)
    write_file(out / "run.json", json.dumps(run, indent=2).encode())
    return found


def _make_folder(out: Path) -> None:
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise DotsZooError(
            f"{out}: expected a new or an empty folder for the run; choose another or remove it"
        )
    try:
        (out / "genotypes").mkdir(parents=True)
        (out / "plots").mkdir()
    except OSError as error:
        raise DotsZooError(f"{out}: cannot be made: {error.strerror}") from error


def _line(epoch: Epoch, figures: Mapping[str, float]) -> dict[str, Any]:
    return {"stage": epoch.stage, "epoch": epoch.epoch, **figures, "weights": epoch.weights}


def _facts(provenance: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    return {
        **provenance,
        "wall_seconds": round(seconds, 1),
        "git_commit": _commit(),
        **surroundings(("torch", "torchvision", "timm", "accelerate", "numpy", "scikit-learn")),
    }


def _commit() -> str | None:
    """The commit of the checkout that dots_zoo runs from, None where it does not run from one."""
    root = Path(dots_zoo.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    asked = subprocess.run(["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True)
    return asked.stdout.strip() if asked.returncode == 0 else None
