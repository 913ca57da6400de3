"""A search as a folder: train through a method's stages and write what was found, how, and how it went.

The folder holds `config.yaml` (a search with `--config` of it is the same search), `metrics.jsonl` (a line an
epoch: figures, weights), `tensorboard/`, `genotypes/` (the cell after every epoch), `plots/`, `report.html`,
`genotype.json`, `run.json`, and `checkpoint/`, from which it goes on. Every file but TensorBoard's is whole
or absent.
"""

import dataclasses
import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter

import dots_zoo
from dots_zoo.datasets import Data
from dots_zoo.errors import DotsZooError
from dots_zoo.files import write_file
from dots_zoo.genotype import Genotype, load_genotype, save_genotype
from dots_zoo.interrupt import noted
from dots_zoo.surroundings import surroundings

from .checkpoint import Keeper
from .lookup import find, read_table
from .loop import run_stages
from .methods import Derivation, plan
from .plots import plot_weights
from .space import SearchSpace
from .spaces import named_space
from .stages import Epoch
from .story import write_story


def search(
    method: str,
    config: Any,
    derivation: Derivation,
    space: SearchSpace | str,
    data: Data,
    out: Path,
    *,
    table: Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 300.0,
    progress: bool = True,
) -> Genotype:
    """Search a cell in a space, or in one of `spaces.NAMES`, write the run into `out`, return what was found.

    config: of the method, `METHODS[method].config`. table: of NAS-Bench-201, in which the cell of every epoch
    is looked up (`lookup.py`). resume: go on from the checkpoint in `out`, or begin where there is none.
    checkpoint_seconds: between two checkpoints; 0 keeps every step. Raises DotsZooError where `out` holds
    something and resume is not set, the configuration cannot be used, or a loss is not finite; and SystemExit
    with 143 after SIGTERM, once the step is kept.
    """
    searched = named_space(space) if isinstance(space, str) else space
    stages = plan(method, config, derivation, searched)
    if table is not None and searched.family != "nasbench201":
        raise DotsZooError(f"table: expected the space S6, whose cells it holds, got {space}")
    rows = None if table is None else read_table(table)
    settings = {"space": space} if isinstance(space, str) else {}
    settings |= {**data.options, **dataclasses.asdict(derivation), **dataclasses.asdict(config)}
    identity = json.loads(json.dumps({"method": method, **settings}))  # tuples as lists
    provenance = {
        "method": method,
        "dataset": data.name,
        "origin": f"dots_zoo {dots_zoo.__version__}",
        "seed": config.training.seed,
        "config_sha256": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
    }
    with noted() as stop:
        keeper = Keeper(out / "checkpoint", checkpoint_seconds, identity, stop)
        saved = keeper.saved() if resume else None
        epochs = run_stages(stages, config.training, data, keeper=keeper, saved=saved, progress=progress)
        _make_folder(out, resume)
        log = _Log(out, saved.facts["place"]["told"] if saved else 0)
        if not log.lines:
            _write_settings(out, method, identity)
        for epoch in epochs:
            found = Genotype(f"{method}_{data.name}_seed{config.training.seed}", searched.family, epoch.cells)
            figures = dict(epoch.figures)
            if table is not None and rows is not None:
                figures |= {f"table.{key}": value for key, value in find(rows, found, table).items()}
            found = dataclasses.replace(found, provenance={**provenance, "metrics": figures})
            save_genotype(found, out / "genotypes" / f"{len(log.lines):03d}.json")
            log.add(epoch, figures)
    plot_weights(out / "metrics.jsonl", out / "plots")
    found = load_genotype(out / "genotypes" / f"{len(log.lines) - 1:03d}.json")
    save_genotype(found, out / "genotype.json")
    write_file(out / "run.json", json.dumps(_facts(provenance, log.lines), indent=2).encode())
    write_story(out)
    return found


class _Log:
    """metrics.jsonl and TensorBoard: a line an epoch. told: the lines of a search that goes on which stay."""

    def __init__(self, out: Path, told: int) -> None:
        self.path = out / "metrics.jsonl"
        written = self.path.read_text("utf-8").splitlines() if told and self.path.is_file() else []
        if len(written) < told:
            raise DotsZooError(
                f"{self.path}: expected the {told} lines of the search so far, got {len(written)}"
            )
        self.lines = [json.loads(line) for line in written[:told]]
        step = self.lines[-1]["epoch"] + 1 if self.lines else 0
        self.board = SummaryWriter(str(out / "tensorboard"), purge_step=step)

    def add(self, epoch: Epoch, figures: Mapping[str, float]) -> None:
        self.lines.append({"stage": epoch.stage, "epoch": epoch.epoch, **figures, "weights": epoch.weights})
        write_file(self.path, "".join(json.dumps(line) + "\n" for line in self.lines).encode())
        for key, value in figures.items():
            self.board.add_scalar(key, value, epoch.epoch)
        self.board.flush()


def _write_settings(out: Path, method: str, settings: Mapping[str, Any]) -> None:
    plain = {name: value for name, value in settings.items() if name != "method"}
    header = f"# dots-zoo search {method} --config config.yaml --out FOLDER\n"
    write_file(out / "config.yaml", (header + yaml.safe_dump(plain, sort_keys=False)).encode())


def _make_folder(out: Path, resume: bool) -> None:
    if out.exists() and not resume and (not out.is_dir() or any(out.iterdir())):
        raise DotsZooError(
            f"{out}: expected a new or an empty folder for the run; choose another, or go on with --resume"
        )
    try:
        (out / "genotypes").mkdir(parents=True, exist_ok=True)
        (out / "plots").mkdir(exist_ok=True)
    except OSError as error:
        raise DotsZooError(f"{out}: cannot be made: {error.strerror}") from error


def _facts(provenance: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        **provenance,
        "wall_seconds": round(sum(line["seconds"] for line in lines), 1),  # of all processes that it took
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
