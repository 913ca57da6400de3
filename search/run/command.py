"""The search from Python and as a command: `search("dots", ...)` and `dots-zoo search dots ...`.

Both take the options of `search_line`: the fields of DataOptions, of Derivation and of the method's
configuration, and those of the run. Presets are `presets/NAME.yaml`: the numbers of a paper, or small ones,
for one method.
"""

import json
import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
from accelerate import PartialState  # type: ignore[import-untyped]
from torch import nn

from dots_zoo.data.datasets import DataOptions
from dots_zoo.data.load import add_data_options, load_data
from dots_zoo.genotype import Genotype, load_genotype, to_text
from dots_zoo.macro import usual_macro
from dots_zoo.options.command_line import CommandLine, choose_subcommand
from dots_zoo.options.declaration import REQUIRED, Option
from dots_zoo.runtime.config import build, presets_in
from dots_zoo.runtime.distributed import disconnecting
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.malloc import keep_freed_memory
from dots_zoo.runtime.table import look_up

from ..methods.registry import METHODS, Derivation
from ..space.named import SPACES, named_space
from .run import run_search
from .seeds import line, search_seeds
from .summary import summarise

PRESETS = Path(__file__).parent / "presets"
TEXT = "Search a cell and write genotype.json, the log and the plots of the run into a folder."
OUT = Option("out", str, REQUIRED, "folder of the run; new or empty")
RUN = (
    Option("table", str | None, None, "CSV of NAS-Bench-201 in which the cells of space S6 are looked up"),
    Option("resume", bool, False, "resume from the checkpoint in the folder"),
    Option("checkpoint_seconds", float, 300.0, "time between two checkpoints; 0: every step"),
    Option("any_memory", bool, False, "start also where a step needs more memory than is free"),
    Option("quiet", bool, False, "neither a bar nor a line an epoch"),
)
SEEDS = Option("seeds", int, 1, "searches, with training.seed and the seeds after it, compared in seeds.json")
JSON = Option("json", bool, False, "print JSON and nothing else")
MAIN = ("data", "data_root", "space", "macro", "layers", "channels", "epochs", "topology", "seeds", "resume")
MATRIX = """\
what goes together (every other combination is refused with the reason):
  method                               --topology none  pairs|any  edge_weights|edge_sigmoid
  {grouped:<36} -                yes        magnitude only
  {deciding:<36} yes              -          -
  all others                           yes              yes        magnitude only
  any method without groups, space S6  yes              -          -
  yes: with --selection magnitude, perturbation, perturbation_magnitude
  --keep above 1 needs a topology search
"""
EXAMPLES = (
    "search dots --data-root photos -o runs/cell",
    "search dots --data-root photos --preset folder_small -o runs/small",
    "search dots --preset dots_cifar10 --data-root data --download -o runs/cifar",
    "search darts --preset darts_small --data-root data -o runs/darts",
    "search darts --topology pairs --keep 2 --data digits -o runs/top2",
    "search dots --channels 8 --print-config > mine.yaml",
    "search dots --config mine.yaml -o runs/mine",
    "search dots --config runs/cell/config.yaml --training.seed 1 -o runs/again",
    "search dots --data digits -o runs/first --resume",
)


@dataclass(frozen=True)
class SearchResult:
    """A search that has ended, in its folder.

    Args:
        path: the folder; a reference of the cell wherever a network is named.
        genotype: of the cell.
    """

    path: Path
    genotype: Genotype

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Return the figures and weights of every epoch, the rows of metrics.jsonl."""
        return [json.loads(row) for row in (self.path / "metrics.jsonl").read_text("utf-8").splitlines()]

    @property
    def table(self) -> dict[str, float]:
        """Return the figures of the table in which the cell was looked up; empty without one."""
        figures: Mapping[str, float] = self.genotype.provenance["metrics"]
        return {key: value for key, value in figures.items() if key.startswith("table.")}

    def model(self, macro: str | None = None, **arguments: Any) -> nn.Module:
        """Build a network of the cell, untrained.

        Args:
            macro: macro-architecture; if not given that of its space for small images.
            arguments: those of timm.create_model, such as channels, layers and num_classes.
        """
        name = macro or usual_macro(self.genotype.space, 32)
        genotype = str(self.path / "genotype.json")
        network: nn.Module = timm.create_model(f"cell_{name}", genotype=genotype, **arguments)
        return network


@dataclass(frozen=True)
class SeedsResult:
    """The same search with several seeds.

    Args:
        path: the folder.
        summary: contents of its seeds.json.
    """

    path: Path
    summary: Mapping[str, Any]

    @property
    def runs(self) -> tuple[SearchResult, ...]:
        """Return the searches, one a seed."""
        folders = [self.path / run for run in self.summary["runs"]]
        return tuple(SearchResult(folder, load_genotype(folder / "genotype.json")) for folder in folders)


@dataclass(frozen=True)
class Chosen:
    """The options of a search.

    Args:
        method, config, derivation, space, data, out: arguments of `run_search`; data is not loaded yet.
        seeds: number of searches.
        json: print the result as JSON.
        options: further arguments of `run_search`.
    """

    method: str
    config: Any
    derivation: Derivation
    space: str
    data: DataOptions
    out: Path
    seeds: int
    json: bool
    options: Mapping[str, Any]


def search(method: str, *, out: str | os.PathLike[str], **options: Any) -> SearchResult | SeedsResult:
    """Search for a cell and write the run into a folder, as `dots-zoo search METHOD` does.

    Args:
        method: name of the method.
        out: folder of the run, new or empty.
        options: the command's, with underscores, those of parts as tables or with dots:
            `training={"batch_size": 32}` or `**{"training.batch_size": 32}`. With seeds above 1 the result
            is a SeedsResult.

    Raises:
        DotsZooError: before anything is written, for options and input that cannot be used.
    """
    look_up(METHODS, method, "method")
    return run_chosen(chosen_of(method, search_line(method).parse_values({"out": Path(out), **options})))


@disconnecting()
def main(argv: Sequence[str]) -> int:
    """Search as `argv` says and print the cell, or the comparison of the seeds."""
    keep_freed_memory()
    chosen = choose(argv)
    with redirect_stdout(sys.stderr) if chosen.json else nullcontext():
        result = run_chosen(chosen)
    if PartialState().is_main_process:
        print(json.dumps(as_json(result), indent=1) if chosen.json else summary(result))
    return 0


def choose(argv: Sequence[str]) -> Chosen:
    """Return the search that a command line stands for.

    Raises:
        DotsZooError: if an option has a value that cannot be used.
    """
    titles = {name: record.title for name, record in METHODS.items()}
    footer = "\n  dots-zoo ".join(["examples:", *EXAMPLES])
    method, words = choose_subcommand("search", TEXT, titles, argv, f"{_matrix()}\n{footer}")
    return chosen_of(method, search_line(method).parse(words))


def search_line(method: str) -> CommandLine:
    """Return the options of `dots-zoo search METHOD`."""
    record = METHODS[method]
    examples = [example for example in EXAMPLES if example.startswith(f"search {method} ")]
    command_line = CommandLine(
        f"search {method}",
        record.title,
        "-o FOLDER",
        examples or [f"search {method} --data-root photos -o runs/{method}"],
        main=MAIN,
        presets=presets_of(method),
        config=True,
    )
    command_line.add(OUT)
    command_line.add(Option("space", str, "S0", _spaces()))
    for option in (*RUN, SEEDS, JSON):
        command_line.add(option)
    add_data_options(command_line)
    command_line.add_from(Derivation, defaults={"topology": record.topology})
    command_line.add_from(record.config)
    return command_line


def command_lines() -> list[CommandLine]:
    """Return the options of the search by every method."""
    return [search_line(method) for method in METHODS]


def chosen_of(method: str, values: Mapping[str, Any]) -> Chosen:
    """Return the search that the values of the options stand for."""
    if values["seeds"] < 1:
        raise DotsZooError(f"seeds: expected 1 or more, got {values['seeds']}")
    named_space(values["space"])  # refused here where there is none
    return Chosen(
        method=method,
        config=build(METHODS[method].config, values),
        derivation=build(Derivation, values),
        space=values["space"],
        data=build(DataOptions, values),
        out=Path(values["out"]),
        seeds=values["seeds"],
        json=values["json"],
        options={
            "table": values["table"] and Path(values["table"]),
            "progress": not values["quiet"],
            **{name: values[name] for name in ("resume", "checkpoint_seconds", "any_memory")},
        },
    )


def run_chosen(chosen: Chosen) -> SearchResult | SeedsResult:
    """Search, with one seed or with several."""
    what = chosen.method, chosen.config, chosen.derivation, chosen.space, load_data(chosen.data), chosen.out
    if chosen.seeds == 1:
        return SearchResult(chosen.out, run_search(*what, **chosen.options))
    first = chosen.config.training.seed
    return SeedsResult(chosen.out, search_seeds(range(first, first + chosen.seeds), *what, **chosen.options))


def presets_of(method: str) -> dict[str, dict[str, Any]]:
    """Return the presets of a method by name, without the line that says whose they are."""
    presets = presets_in(PRESETS)
    return {name: values for name, values in presets.items() if values.pop("method") == method}


def summary(result: SearchResult | SeedsResult) -> str:
    """Return the result as lines: the cell, where it is, a summary, and the command to type next."""
    if isinstance(result, SeedsResult):
        return line(dict(result.summary), result.path)
    files = "genotype.json, report.html, run.json, config.yaml, metrics.jsonl, plots"
    written = f"written to {result.path}: {files}"
    return "\n".join([to_text(result.genotype), written, *summarise(result.path).lines()])


def as_json(result: SearchResult | SeedsResult) -> dict[str, Any]:
    """Return what --json prints."""
    if isinstance(result, SeedsResult):
        return {"path": str(result.path), **result.summary}
    figures = result.genotype.provenance["metrics"]
    return {"path": str(result.path), "genotype": to_text(result.genotype), "figures": figures}


def _matrix() -> str:
    """Return the help on which methods go with which topology searches."""
    grouped = [f"{name} in groups" for name, record in METHODS.items() if record.grouped(record.config())]
    deciding = [name for name, record in METHODS.items() if record.decides_edges]
    return MATRIX.format(grouped=", ".join(grouped), deciding=", ".join(deciding))


def _spaces() -> str:
    titles = (f"{name} ({space.title})" if space.title else name for name, space in SPACES.items())
    return f"search space: {', '.join(titles)}"
