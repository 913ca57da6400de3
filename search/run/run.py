"""The folder of a search: run the stages of a method and write its result, its log and its provenance.

The folder holds `config.yaml` (a search with `--config` of it is the same search), `metrics.jsonl` (a line an
epoch: figures, weights), `tensorboard/`, `genotypes/` (the cell after every epoch), `plots/`, `report.html`,
`genotype.json`, `run.json`, `checkpoint/`, from which it resumes, and `stages/`, the search at the end of a
stage that others follow. Every file but TensorBoard's is whole or absent.
"""

import hashlib
import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from torch.utils.tensorboard import SummaryWriter

import dots_zoo
from dots_zoo.data.datasets import Data
from dots_zoo.genotype import Genotype, load_genotype, save_genotype, to_text
from dots_zoo.runtime.atomic_write import write_file
from dots_zoo.runtime.best_effort import attempt
from dots_zoo.runtime.environment import environment
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.free_memory import out_of_memory_as_error
from dots_zoo.runtime.run_folder import check_run_folder, make_folder
from dots_zoo.runtime.sigterm import sigterm_flag

from ..methods.registry import Derivation, plan
from ..space.named import named_space
from ..space.nasbench201_table import find, read_table
from ..space.space import SearchSpace
from ..stages.checkpoint import CheckpointManager
from ..stages.config import with_batch
from ..stages.loop import run_of, run_stages
from ..stages.stage import Epoch, Stage
from ..supernet import Memory, supernet_macro
from .choose_kernels import resolve_kernels
from .memory import check_memory
from .report import write_search_report
from .summary import describe_data, describe_network

OUT_OF_MEMORY = (
    "choose --training.memory lean or checkpoint, a smaller --training.batch-size or a smaller --image-size"
)


def run_search(
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
    siblings: Sequence[Path] = (),
    any_memory: bool = False,
    progress: bool = True,
) -> Genotype:
    """Search for a cell in a space, or one by name, write the run into `out` and return the genotype.

    config: a `METHODS[method].config`. table: of NAS-Bench-201, to look up the cells in. resume: start
    from the checkpoint in `out`, if there is one. checkpoint_seconds: between two of them; 0: every step.
    siblings: folders of all searches that share the decision about kernels, with `out`.
    any_memory: start also where the memory will not do. Of several processes the first writes. Raises
    DotsZooError if `out` is not empty (without resume) or not of a search, options cannot be used, memory
    will not do or runs out, or a loss is not finite; SystemExit with 143 after SIGTERM.
    """
    searched = named_space(space) if isinstance(space, str) else space
    run = run_of(config.training, data)
    training = with_batch(config.training, len(run.parts["a"]))
    config = replace(config, macro=supernet_macro(config.macro, searched, data.size), training=training)
    stages = plan(method, config, derivation, searched)
    rows = None if table is None else _table_rows(table, searched, space)
    run.processes.first_does(partial(check_run_folder, out, "search", resume=resume))
    kernels, processes = resolve_kernels(training.kernels, stages, run, siblings or [out]), run.processes
    run = replace(run, kernels=kernels == "on")
    config = replace(config, training=replace(training, kernels=kernels))

    identity = _identity(method, space, data, derivation, config)
    provenance = _provenance(identity, data, run.seed)
    with_memory = partial(_plan_with, method, config, derivation, searched)
    check_memory(with_memory, run, training.memory, any_memory, show=progress)
    with sigterm_flag() as stop, out_of_memory_as_error("search", OUT_OF_MEMORY):
        manager = CheckpointManager(out / "checkpoint", checkpoint_seconds, identity, stop, out / "stages")
        saved = manager.load_latest(processes) if resume else None
        if not processes.agree(json.dumps([identity, saved.path.name if saved else None], sort_keys=True)):
            processes.end("search: expected the same options and the same folder in all processes")
        epochs = run_stages(stages, run, checkpoints=manager, saved=saved, progress=progress)
        folder = _Folder(out, saved.facts["progress"]["logged_epochs"] if saved else 0)
        processes.first_does(partial(folder.prepare, identity))
        result: Genotype | None = None
        for epoch in epochs:
            result = Genotype(f"{method}_{data.name}_seed{run.seed}", searched.family, epoch.cells)
            figures = dict(epoch.figures)
            if table is not None and rows is not None:
                figures |= {f"table.{key}": value for key, value in find(rows, result, table).items()}
            result = replace(result, provenance={**provenance, "metrics": figures})
            processes.first_does(partial(folder.add, epoch, figures, result))
    if result is None:  # no epoch was left
        result = load_genotype(folder.genotype(folder.logged_epochs - 1))
    processes.first_does(partial(folder.end, result, provenance, data))
    return result


def _identity(
    method: str, space: SearchSpace | str, data: Data, derivation: Derivation, config: Any
) -> dict[str, Any]:
    """Return all options, as config.yaml and checkpoints hold them: tuples as lists."""
    named = {"space": space} if isinstance(space, str) else {}
    settings = {**named, **data.options, **asdict(derivation), **asdict(config)}
    identity: dict[str, Any] = json.loads(json.dumps({"method": method, **settings}))
    return identity


def _table_rows(table: Path, searched: SearchSpace, space: SearchSpace | str) -> Any:
    """Read a table of NAS-Bench-201. Raises DotsZooError for a space that has other cells."""
    if searched.family != "nasbench201":
        raise DotsZooError(f"table: expected the space S6, whose cells it holds, got {space}")
    return read_table(table)


def _plan_with(
    method: str, config: Any, derivation: Derivation, searched: SearchSpace, memory: Memory
) -> Sequence[Stage]:
    """Return the stages with another option for memory."""
    training = replace(config.training, memory=memory)
    return plan(method, replace(config, training=training), derivation, searched)


def _provenance(identity: Mapping[str, Any], data: Data, seed: int) -> dict[str, Any]:
    return {
        "method": identity["method"],
        "dataset": data.name,
        "origin": f"dots_zoo {dots_zoo.__version__}",
        "seed": seed,
        "config_sha256": hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
    }


class _Folder:
    """The files of a run: metrics, TensorBoard and a cell for every epoch, the rest at the end.

    logged_epochs: Epochs of a resumed search that stay in its files.
    """

    def __init__(self, out: Path, logged_epochs: int) -> None:
        self.out, self.logged_epochs = out, logged_epochs
        self.path = out / "metrics.jsonl"
        self.lines: list[dict[str, Any]] = []

    def genotype(self, index: int) -> Path:
        return self.out / "genotypes" / f"{index:03d}.json"

    def prepare(self, settings: Mapping[str, Any]) -> None:
        make_folder(self.out)
        resumed = self.logged_epochs and self.path.is_file()
        written = self.path.read_text("utf-8").splitlines() if resumed else []
        if len(written) < self.logged_epochs:
            raise DotsZooError(
                f"{self.path}: expected the {self.logged_epochs} lines of the search so far, "
                f"got {len(written)}"
            )
        self.lines = [json.loads(line) for line in written[: self.logged_epochs]]
        if not self.lines:
            plain = {name: value for name, value in settings.items() if name != "method"}
            header = f"# dots-zoo search {settings['method']} --config config.yaml --out FOLDER\n"
            content = header + yaml.safe_dump(plain, sort_keys=False)
            write_file(self.out / "config.yaml", content.encode())  # first: it says whose folder this is
        for name in ("genotypes", "plots"):
            make_folder(self.out / name)
        step = self.lines[-1]["epoch"] + 1 if self.lines else 0
        self.board = SummaryWriter(str(self.out / "tensorboard"), purge_step=step)

    def add(self, epoch: Epoch, figures: Mapping[str, float], genotype: Genotype) -> None:
        save_genotype(genotype, self.genotype(len(self.lines)))
        line = {"stage": epoch.stage, "epoch": epoch.epoch, **figures}
        self.lines.append({**line, "genotype": to_text(genotype), "weights": epoch.weights})
        write_file(self.path, "".join(json.dumps(line) + "\n" for line in self.lines).encode())
        for key, value in figures.items():
            self.board.add_scalar(key, value, epoch.epoch)
        self.board.add_text("genotype", to_text(genotype), epoch.epoch)
        self.board.flush()

    def end(self, genotype: Genotype, provenance: Mapping[str, Any], data: Data) -> None:
        """Write the result first, then pictures and page, which the run can do without."""
        result = save_genotype(genotype, self.out / "genotype.json")
        facts = _facts(provenance, self.lines)
        facts |= {"data": describe_data(data), "network": describe_network(result, data)}
        write_file(self.out / "run.json", json.dumps(facts, indent=2).encode())
        write_search_report(self.out)


def _facts(provenance: Mapping[str, Any], lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        **provenance,
        "wall_seconds": round(sum(line["seconds"] for line in lines), 1),  # of the search and its resumptions
        "git_commit": _commit(),
        **environment(("torch", "torchvision", "timm", "accelerate", "numpy", "scikit-learn")),
    }


def _commit() -> str | None:
    """Return the commit of the checkout that dots_zoo runs from; None if there is none or git fails."""
    root = Path(dots_zoo.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    ask = partial(subprocess.run, command, capture_output=True, text=True, check=True)
    answer = attempt("git_commit of run.json", ask)
    return None if answer is None else answer.stdout.strip()
