"""List for `dots-zoo list` the registered models with their costs, and the bundled cells."""

import json
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from typing import Any

import timm

from ..genotype import bundled_names, load_genotype
from ..macs import count
from ..options.command_line import CommandLine
from ..options.declaration import Option
from ..runtime.errors import DotsZooError

MOBILE_LIMIT = 600_000_000  # MACs: the mobile setting of the NAS papers, at 224x224

Row = dict[str, Any]


def command_line() -> CommandLine:
    """Return the options of the command."""
    line = CommandLine(
        "list",
        "Print the registered models: parameters, MACs, input size, origin, a paper's accuracy.",
        "[PATTERN]",
        ["list 'dots_*'", "list --cells 'fair_darts_*'", "list --json"],
    )
    line.positional("pattern", "only names that match", nargs="?", default="*")
    line.add(Option("cells", bool, False, "print the bundled cells instead"))
    line.add(Option("json", bool, False, "print JSON and nothing else"))
    return line


def command_lines() -> list[CommandLine]:
    """Return the options of every command of this module."""
    return [command_line()]


def main(argv: Sequence[str]) -> int:
    """Print a line a model, or a cell, as `argv` says."""
    values = command_line().parse(argv)
    rows, line = (cells, cell_line) if values["cells"] else (models, model_line)
    pattern = values["pattern"]
    if values["json"]:
        print(json.dumps(list(rows(pattern)), indent=1))
        return 0
    any_row = False
    for row in rows(pattern):
        print(line(row), flush=True)
        any_row = True
    if not any_row:
        raise DotsZooError(
            f"no {'cell' if values['cells'] else 'model'} matches {pattern!r}; 'dots-zoo list' prints all"
        )
    if not values["cells"]:
        print("MACs: convolutions and linear layers. 'paper' figures are the papers' own accuracies, in %.")
    return 0


def models(pattern: str = "*") -> Iterator[Row]:
    """Yield a row for each registered model that has a cell; `paper` is the paper's figure, not measured."""
    for name in timm.list_models(module="zoo"):
        if name.startswith("cell_") or not fnmatch(name, pattern):
            continue
        cfg: Any = timm.get_pretrained_cfg(name)
        model: Any = timm.create_model(name, device="meta")
        costs = count(model, cfg.input_size)
        mobile = cfg.input_size[1] >= 224
        yield {
            "name": name,
            "params": costs.params,
            "macs": costs.macs,
            "input_size": list(cfg.input_size),
            "over_mobile_limit": mobile and costs.macs > MOBILE_LIMIT,
            "weights": bool(cfg.has_weights),
            "origin": model.genotype.provenance.get("origin", ""),
            "paper": "; ".join(cfg.notes or ()),
        }


def cells(pattern: str = "*") -> Iterator[Row]:
    """Yield a row for each bundled cell; any of them builds as cell_mobile or cell_cifar."""
    for name in bundled_names():
        if fnmatch(name, pattern):
            genotype = load_genotype(name)
            provenance = genotype.provenance
            yield {
                "name": name,
                "space": genotype.space,
                **{k: provenance.get(k, "") for k in ("origin", "paper", "note")},
            }


def model_line(row: Row) -> str:
    """Format a model as one line."""
    flag = ">600M" if row["over_mobile_limit"] else "weights" if row["weights"] else ""
    height, width = row["input_size"][1:]
    cost = f"{row['params'] / 1e6:6.2f} M params {row['macs'] / 1e6:7.1f} M MACs {flag:<7}"
    return f"{row['name']:<28} {cost}  {f'{height}x{width}':<8} {row['origin']:<48} {row['paper'] or '-'}"


def cell_line(row: Row) -> str:
    """Format a bundled cell as one line."""
    return f"{row['name']:<40} {row['space']:<8} {row['paper']:<24} {row['origin']}"
