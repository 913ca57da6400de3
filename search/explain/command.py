"""Analyse a completed search: `dots-zoo explain WHAT RUN` writes figures as JSON, and a picture.

Every analysis is a file `WHAT.py`: its options, the figures that it computes of a `Finished` search, its
picture, and its result in one line.
"""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from dots_zoo.options.command_line import CommandLine, choose_subcommand
from dots_zoo.options.declaration import Option
from dots_zoo.runtime.atomic_write import follow_links, write_file
from dots_zoo.runtime.best_effort import attempt
from dots_zoo.runtime.config import build
from dots_zoo.runtime.environment import environment
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.malloc import keep_freed_memory

from . import alone as explain_alone
from . import discretise as explain_discretise
from . import features as explain_features
from . import hessian as explain_hessian
from . import landscape as explain_landscape
from . import shuffle as explain_shuffle
from . import skip as explain_skip
from . import tau as explain_tau
from .completed_run import CompletedRun, read_completed_run

PACKAGES = ("torch", "torchvision", "timm", "accelerate", "numpy", "scikit-learn", "scipy", "matplotlib")
TEXT = "Analyse a completed search: figures as JSON and a picture. Every draw is seeded."
EXAMPLES = {
    "hessian": ["runs/x"],
    "landscape": ["runs/x --points 11 --radius 2"],
    "discretise": [
        "runs/x --edge.node 3 --edge.input 1 --epochs 5",
        "runs/x --edge.operations '[skip_connect, sep_conv_3x3]'",
    ],
    "shuffle": ["runs/x --draws 20"],
    "skip": ["runs/x"],
    "tau": ["runs/x --by beta --training.epochs 20 --training.seeds 3"],
    "features": ["runs/x --cell last --out looked/at"],
    "alone": ["runs/x --edge.cell-type reduce --training.epochs 20"],
}


@dataclass(frozen=True)
class Analysis:
    """One analysis of a completed search.

    Args:
        config: its options; the first line of their docstring is its title.
        explain: search, options and whether to show a progress bar -> figures.
        draw: figures -> picture.
        line: figures -> text.
    """

    config: type[Any]
    explain: Callable[[CompletedRun, Any, bool], dict[str, Any]]
    draw: Callable[[dict[str, Any]], Figure]
    line: Callable[[dict[str, Any]], str]


def _analysis(config: type[Any], module: Any) -> Analysis:
    return Analysis(config, module.explain, module.draw, module.line)


ANALYSES: Mapping[str, Analysis] = {
    "hessian": _analysis(explain_hessian.HessianConfig, explain_hessian),
    "landscape": _analysis(explain_landscape.LandscapeConfig, explain_landscape),
    "discretise": _analysis(explain_discretise.DiscretiseConfig, explain_discretise),
    "shuffle": _analysis(explain_shuffle.ShuffleConfig, explain_shuffle),
    "skip": _analysis(explain_skip.SkipConfig, explain_skip),
    "tau": _analysis(explain_tau.TauConfig, explain_tau),
    "features": _analysis(explain_features.FeaturesConfig, explain_features),
    "alone": _analysis(explain_alone.AloneConfig, explain_alone),
}


def main(argv: Sequence[str]) -> int:
    """Run the analysis that `argv` names and print its result in a line.

    Raises:
        DotsZooError: if the input cannot be used.
    """
    keep_freed_memory()
    titles = {name: title_of(analysis) for name, analysis in ANALYSES.items()}
    examples = [f"explain {name} {words}" for name, lines in EXAMPLES.items() for words in lines]
    footer = "\n  dots-zoo ".join(["examples:", *examples])
    what, words = choose_subcommand("explain", TEXT, titles, argv, footer)
    values = command_line(what).parse(words)
    run, out = Path(values["run"]), values["out"]
    config = build(ANALYSES[what].config, values)
    folder = run / "explain" if out is None else Path(out)
    result, [written, *pictures] = explain(what, run, config, folder, progress=not values["quiet"])
    print(", ".join([f"{result}; written to {written}", *(picture.name for picture in pictures)]))
    return 0


def explain(what: str, run: Path, config: Any, out: Path, *, progress: bool = True) -> tuple[str, list[Path]]:
    """Analyse the search in `run` and write out/WHAT.json, and out/WHAT.png if it can be drawn.

    Returns:
        The result in a line, and the files.

    Raises:
        DotsZooError: if the folder is not that of a completed search, or the analysis has no meaning
            there; then nothing is written.
    """
    analysis, completed_run = ANALYSES[what], read_completed_run(run)
    for suffix in (".png", ".json"):  # refused before the work; the folder may be missing still
        follow_links(out / f"{what}{suffix}")
    figures = analysis.explain(completed_run, config, progress)
    document = {
        "schema": 1,
        "kind": f"explain.{what}",
        "run": str(run),
        **{key: completed_run.facts[key] for key in ("method", "dataset", "seed", "config_sha256")},
        "settings": asdict(config),
        "figures": figures,
        **environment(PACKAGES),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DotsZooError(f"{out}: cannot be made: {error.strerror}") from error
    written = write_file(out / f"{what}.json", json.dumps(document, indent=1).encode())
    path = out / f"{what}.png"
    picture = attempt(str(path), partial(_draw, analysis, figures, path))
    return analysis.line(figures), [written, *([picture] if picture else [])]


def _draw(analysis: Analysis, figures: dict[str, Any], path: Path) -> Path:
    picture = io.BytesIO()
    analysis.draw(figures).savefig(picture, format="png", dpi=100)
    return write_file(path, picture.getvalue())


def title_of(analysis: Analysis) -> str:
    """Return the first line of the docstring of its options."""
    return (analysis.config.__doc__ or "").splitlines()[0]


def command_line(what: str) -> CommandLine:
    """Return the options of an analysis."""
    examples = [f"explain {what} {words}" for words in EXAMPLES.get(what, ["runs/x"])]
    line = CommandLine(f"explain {what}", title_of(ANALYSES[what]), "RUN", examples)
    line.positional("run", "folder of a completed search")
    line.add(Option("out", str | None, None, "folder for the files; RUN/explain if not given"))
    line.add(Option("quiet", bool, False, "print no progress"))
    line.add_from(ANALYSES[what].config)
    return line


def command_lines() -> list[CommandLine]:
    """Return the options of every analysis."""
    return [command_line(what) for what in ANALYSES]
