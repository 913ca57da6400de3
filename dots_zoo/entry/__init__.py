"""The command `dots-zoo` up to the choice of a command: what is answered here needs neither torch nor timm.

It ships as the module `dots_zoo_command`, outside the package, whose import registers the networks with timm.
"""

import difflib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version

TITLE = "dots-zoo: cells from differentiable architecture search, found, trained, exported and measured."
EXAMPLES = """examples:
  dots-zoo list                                          the registered models, their cost and origin
  dots-zoo draw dots_imagenet -o cell.svg                a cell as a picture
  dots-zoo search dots --data-root photos -o runs/cell   find a cell on your own images
  dots-zoo explain hessian runs/cell                     analyse a completed search
  dots-zoo train runs/cell --data-root photos -o runs/net
                                                         train its network; timm loads local-dir:runs/net
  dots-zoo train resnet18 --data-root photos -o runs/r18 the same for any of timm's
  dots-zoo eval runs/net --data-root photos              accuracy on test images, of every class too
  dots-zoo predict runs/net photo.jpg                    what an image shows
  dots-zoo det check retinanet_dots_imagenet_fpn_1x_coco what a detector costs; train, test, predict
  dots-zoo seg check bisenetv1_dots_imagenet_camvid      the same for segmentation
  dots-zoo export runs/net -o net.onnx                   a checked ONNX file of it, or of any timm name
  dots-zoo inspect net.onnx                              what it says of itself, operators, MACs
  dots-zoo bench net.onnx --batch 1 8 -o bench.json      its latency on this machine
  dots-zoo report bench.json -o report.html              measurements as a page
  dots-zoo tables -o runs/tables                         the papers' cost tables beside our counts and latency
  dots-zoo demo -o runs/demo                             all of it once, in minutes, on real images
  dots-zoo doctor                                        what is installed and what is missing"""


@dataclass(frozen=True)
class Command:
    """A command of `dots-zoo`.

    Args:
        text: description for the help.
        function: MODULE:FUNCTION of the arguments after the command's name, which returns the exit code. The
            module has command_lines() too, the options of its commands.
        extras: extras that it needs; empty for the core alone.
    """

    text: str
    function: str
    extras: tuple[str, ...] = ()


COMMANDS: Mapping[str, Command] = {
    "list": Command("registered models, their cost and origin", "dots_zoo.commands.list_models:main"),
    "draw": Command("draw the normal and the reduction cell", "dots_zoo.commands.draw:main"),
    "search": Command("search for a cell", "dots_zoo.search.run.command:main", ("search",)),
    "explain": Command("analyse a completed search", "dots_zoo.search.explain.command:main", ("search",)),
    "train": Command("train a network", "dots_zoo.train.command:train_main", ("train",)),
    "eval": Command("evaluate a network", "dots_zoo.train.command:eval_main", ("train",)),
    "predict": Command("name what is on images", "dots_zoo.train.command:predict_main", ("train",)),
    "det": Command("detection with MMDetection", "dots_zoo.openmm.command:detection", ("mm",)),
    "seg": Command("segmentation with MMSegmentation", "dots_zoo.openmm.command:segmentation", ("mm",)),
    "export": Command("export to ONNX, proven", "dots_zoo.export.convert.command:export_main", ("export",)),
    "inspect": Command(
        "print what an ONNX file holds", "dots_zoo.export.convert.command:inspect_main", ("export",)
    ),
    "bench": Command("measure latency", "dots_zoo.export.measure.command:bench_main", ("export",)),
    "report": Command(
        "render measurements as a page", "dots_zoo.export.measure.command:report_main", ("export",)
    ),
    "compare": Command(
        "fail where a network became slower", "dots_zoo.export.measure.command:compare_main", ("export",)
    ),
    "tables": Command("the papers' cost tables", "dots_zoo.export.tables.command:main", ("export",)),
    "demo": Command(
        "all of it once, on real images", "dots_zoo.commands.demo_command:main", ("search", "export")
    ),
    "completion": Command("complete options in a shell", "dots_zoo.commands.completion:main"),
    "doctor": Command("versions, providers, missing extras", "dots_zoo.commands.doctor:main"),
}


def answer(argv: Sequence[str]) -> int | None:
    """Answer what names no command: help, version, a typo; return the exit code, None for a command."""
    first = argv[0] if argv else "--help"
    if first in COMMANDS:
        return None
    if first in ("-h", "--help"):
        print(help_text())
        return 0 if argv else 2
    if first == "--version":
        print(f"dots-zoo {version('dots-zoo')}")
        return 0
    near = difflib.get_close_matches(first, COMMANDS, 1)
    hint = f" (did you mean {near[0]}?)" if near else ""
    print(f"dots-zoo: error: no such command: {first}{hint}; it knows {', '.join(COMMANDS)}", file=sys.stderr)
    return 2


def help_text() -> str:
    """Return the help: every command in a line, and examples."""
    lines = [f"  {name:<10} {command.text}" for name, command in COMMANDS.items()]
    usage = "usage: dots-zoo COMMAND [options]; dots-zoo COMMAND --help, dots-zoo --version"
    return "\n".join([usage, "", TITLE, "", "commands:", *lines, "", EXAMPLES])


def main(argv: Sequence[str] | None = None) -> int:
    """Answer at once, or import the package and run the command; return the exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    code = answer(words)
    if code is not None:
        return code
    from dots_zoo.commands.cli import main as run

    return run(words)
