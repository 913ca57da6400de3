"""Search a cell from the command line: `python -m dots_zoo.search dots --data digits --out runs/first`.

`main` is also `dots-zoo search`.
"""

import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from jsonargparse import ArgumentParser, DefaultHelpFormatter

from dots_zoo.datasets import DataOptions, load_data
from dots_zoo.errors import DotsZooError
from dots_zoo.genotype import Genotype, to_text

from .run import METHODS, search

T = TypeVar("T")

EXAMPLES = """\
examples:
  dots-zoo search dots --data digits --out runs/first
  dots-zoo search dots --data cifar10 --data_root data --download true --out runs/cifar
  dots-zoo search dots --topology_epochs 20 --training.seed 1 --out runs/second
  dots-zoo search dots --training.channels 8 --print_config > mine.yaml
  dots-zoo search dots --config mine.yaml --out runs/mine
  dots-zoo search dots --config runs/first/config.yaml --out runs/again
"""


class _Verbatim(DefaultHelpFormatter, RawDescriptionHelpFormatter):
    """jsonargparse's help with the examples' line breaks."""


def build_parser() -> ArgumentParser:
    """One subcommand for every method; its options are the fields of DataOptions and of the method's
    configuration.
    """
    parser = ArgumentParser(
        prog="dots-zoo search",
        description="Search a cell and write genotype.json, the log and the plots of the run into a folder.",
        epilog=EXAMPLES,
        formatter_class=_Verbatim,
    )
    methods = parser.add_subcommands(dest="method", help="how to search; each has its own --help")
    for name, (config, _) in METHODS.items():
        title = (config.__doc__ or name).splitlines()[0]
        options = ArgumentParser(description=title, epilog=EXAMPLES, formatter_class=_Verbatim)
        options.add_argument("--config", action="config", help="YAML file with any of the options below")
        options.add_argument("--out", type=str, required=True, help="folder of the run; new or empty")
        options.add_class_arguments(DataOptions)
        options.add_class_arguments(config)
        methods.add_subcommand(name, options, help=title)
    return parser


def build(kind: type[T], values: Mapping[str, Any]) -> T:
    """The dataclass `kind`, and the dataclasses among its fields, from parsed options."""
    types = get_type_hints(kind)
    chosen = {
        field.name: build(types[field.name], values[field.name])
        if is_dataclass(types[field.name])
        else values[field.name]
        for field in fields(kind)  # type: ignore[arg-type]
    }
    return kind(**chosen)


def main(argv: Sequence[str] | None = None) -> Genotype:
    """Search as `argv` says and print what was found. Raises DotsZooError where the input cannot be used."""
    parsed = build_parser().parse_args(argv)
    options = parsed[parsed.method].as_dict()
    config = build(METHODS[parsed.method][0], options)
    found = search(parsed.method, config, load_data(build(DataOptions, options)), Path(options["out"]))
    print(to_text(found))
    print(f"written to {options['out']}: genotype.json, run.json, config.yaml, metrics.jsonl, plots")
    return found


if __name__ == "__main__":
    try:
        main()
    except DotsZooError as error:
        print(f"dots-zoo search: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
