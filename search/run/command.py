"""The command `dots-zoo search`: options in, a folder and a line out.

Options come from the command line, a YAML file or a preset, each field of a configuration by its name.
Presets are `presets/NAME.yaml`: the numbers of a paper, or small ones, for one method.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from accelerate import PartialState  # type: ignore[import-untyped]
from jsonargparse import ArgumentParser
from jsonargparse.typing import PositiveInt

from dots_zoo.data.datasets import DataOptions
from dots_zoo.data.load import add_data_options, load_data
from dots_zoo.genotype import to_text
from dots_zoo.runtime.config_cli import Verbatim, build, dotted, preset, preset_names, take_preset
from dots_zoo.runtime.distributed import disconnecting
from dots_zoo.runtime.errors import DotsZooError
from dots_zoo.runtime.malloc import keep_freed_memory

from ..methods.registry import METHODS, Derivation
from ..space.named import SPACES
from .run import search
from .seeds import line, search_seeds

PRESETS = Path(__file__).parent / "presets"

SEEDS_HELP = "searches, with training.seed and the seeds after it; more than one are compared in seeds.json"
TABLE_HELP = "table of NAS-Bench-201 (CSV) in which the cells of space S6 are looked up"
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
EXAMPLES = """\
examples:
  dots-zoo search dots --data digits --out runs/first
  dots-zoo search dots --preset dots_cifar10 --data_root data --download true --out runs/cifar
  dots-zoo search darts --preset darts_small --data_root data --out runs/darts
  dots-zoo search darts --topology pairs --keep 2 --data digits --out runs/top2
  dots-zoo search dots --channels 8 --print_config > mine.yaml
  dots-zoo search dots --config mine.yaml --out runs/mine
  dots-zoo search dots --config runs/first/config.yaml --training.seed 1 --out runs/again
  dots-zoo search dots --data digits --out runs/first --resume
"""


@disconnecting()
def main(argv: Sequence[str] | None = None) -> int:
    """Search as the command line says and print the result.

    Raises:
        DotsZooError: if the input cannot be used.
    """
    keep_freed_memory()
    chosen = choose(argv)
    args = chosen.method, chosen.config, chosen.derivation, chosen.space, load_data(chosen.data), chosen.out
    options: dict[str, Any] = {"table": chosen.table, "resume": chosen.resume}
    options |= {"checkpoint_seconds": chosen.checkpoint_seconds}
    if chosen.seeds > 1:
        first = chosen.config.training.seed
        report = line(search_seeds(range(first, first + chosen.seeds), *args, **options), chosen.out)
    else:
        genotype = search(*args, **options)
        files = "genotype.json, report.html, run.json, config.yaml, metrics.jsonl, plots"
        report = f"{to_text(genotype)}\nwritten to {chosen.out}: {files}"
    if PartialState().is_main_process:
        print(report)
    return 0


@dataclass(frozen=True)
class Chosen:
    """The options of a search: everything that `run.search` needs."""

    method: str
    config: Any
    derivation: Derivation
    space: str
    data: DataOptions
    out: Path
    table: Path | None
    resume: bool
    checkpoint_seconds: float
    seeds: int


def choose(argv: Sequence[str] | None = None) -> Chosen:
    """Parse the command line; exit as argparse does where it cannot.

    Raises:
        DotsZooError: if an option has a value that cannot be used.
    """
    name, words = take_preset(argv)
    parsed = build_parser(words[0] if words else None, name).parse_args(words)
    options = parsed[parsed.method].as_dict()
    return Chosen(
        method=parsed.method,
        config=build(METHODS[parsed.method].config, options),
        derivation=build(Derivation, options),
        space=options["space"],
        data=build(DataOptions, options),
        out=Path(options["out"]),
        table=options["table"] and Path(options["table"]),
        resume=options["resume"],
        checkpoint_seconds=options["checkpoint_seconds"],
        seeds=options["seeds"],
    )


def build_parser(method: str | None = None, preset_name: str | None = None) -> ArgumentParser:
    """Return the parser, with a subcommand for every method.

    The options of `method`, and of no other as they take time, are the fields of DataOptions, of Derivation
    and of the method's configuration, with a preset's numbers as defaults.
    """
    parser = ArgumentParser(
        prog="dots-zoo search",
        description="Search a cell and write genotype.json, the log and the plots of the run into a folder.",
        epilog=_matrix() + EXAMPLES,
        formatter_class=Verbatim,
    )
    methods = parser.add_subcommands(dest="method", help="how to search; each has its own --help")
    for name, record in METHODS.items():
        if name != method:
            methods.add_subcommand(name, ArgumentParser(), help=record.title)
            continue
        presets = f"--preset NAME gives other defaults to the options below: {', '.join(_presets_of(name))}."
        options = ArgumentParser(
            description=f"{record.title}\n{presets}", epilog=EXAMPLES, formatter_class=Verbatim
        )
        methods.add_subcommand(name, options, help=record.title)
        options.add_argument("--config", action="config", help="YAML file with any of the options below")
        options.add_argument("--out", type=str, required=True, help="folder of the run; new or empty")
        options.add_argument("--space", type=Literal[tuple(SPACES)], default="S0", help=_spaces())
        options.add_argument("--table", type=str | None, help=TABLE_HELP)
        options.add_argument("--resume", action="store_true", help="resume from the checkpoint in the folder")
        options.add_argument(
            "--checkpoint_seconds", type=float, default=300.0, help="between two checkpoints; 0: every step"
        )
        options.add_argument("--seeds", type=PositiveInt, default=1, help=SEEDS_HELP)
        add_data_options(options)
        options.add_class_arguments(Derivation)
        options.add_class_arguments(record.config)
        options.set_defaults({"topology": record.topology})
        if preset_name:
            options.set_defaults(_defaults(name, preset_name))
    return parser


def _matrix() -> str:
    """Return the help on which methods go with which topology searches."""
    grouped = [f"{name} in groups" for name, record in METHODS.items() if record.grouped(record.config())]
    deciding = [name for name, record in METHODS.items() if record.decides_edges]
    return MATRIX.format(grouped=", ".join(grouped), deciding=", ".join(deciding))


def _spaces() -> str:
    """Return the help of --space."""
    titles = (f"{name} ({space.title})" if space.title else name for name, space in SPACES.items())
    return f"search space: {', '.join(titles)}"


def _presets_of(method: str) -> list[str]:
    return [name for name in preset_names(PRESETS) if preset(PRESETS, name)["method"] == method]


def _defaults(method: str, name: str) -> dict[str, Any]:
    """Return a preset as dotted options."""
    values = preset(PRESETS, name)
    if values.pop("method") != method:
        raise DotsZooError(
            f"preset {name}: expected one of {method} ({', '.join(_presets_of(method)) or 'there is none'})"
        )
    return dotted(values)
