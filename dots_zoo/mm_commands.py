"""`dots-zoo det` and `dots-zoo seg`: detection with MMDetection, segmentation with MMSegmentation."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from . import mm_run
from .mm_config import load_config

NAMES = {"det": "detection with MMDetection", "seg": "segmentation with MMSegmentation"}


def _parser(task: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"dots-zoo {task}", description=NAMES[task])
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")

    def command(name: str, run: object, text: str) -> argparse.ArgumentParser:
        p = commands.add_parser(name, help=text, description=text)
        p.set_defaults(run=run, task=task)
        p.add_argument("config", help="a config file, or the name of a shipped one")
        p.add_argument("--genotype", help="build the backbone from this cell: a name, a file or a text")
        p.add_argument("--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="change the config")
        return p

    p = command("train", _train, "train a model")
    p.add_argument("--work-dir", type=Path, required=True, help="folder of the run; new or empty")
    p.add_argument("--data-root", help="folder of the data, in place of the config's data_root")
    p.add_argument("--resume", action="store_true", help="go on from the last checkpoint in the folder")
    p.add_argument("--amp", action="store_true", help="mixed precision")

    p = command("test", _test, "evaluate a checkpoint on the test set")
    p.add_argument("checkpoint", type=Path)
    p.add_argument("--data-root", help="folder of the data, in place of the config's data_root")
    p.add_argument("--work-dir", type=Path, required=True, help="folder for logs")
    return parser


def main(task: str, argv: Sequence[str]) -> int:
    args = _parser(task).parse_args(argv)
    result: int = args.run(args)
    return result


def _config(args: argparse.Namespace) -> object:
    return load_config(
        args.config,
        args.task,
        genotype=args.genotype,
        data_root=getattr(args, "data_root", None),
        options=args.cfg_options,
    )


def _train(args: argparse.Namespace) -> int:
    run = mm_run.train(_config(args), args.work_dir, resume=args.resume, amp=args.amp)
    print(json.dumps(run, indent=1))
    return 0


def _test(args: argparse.Namespace) -> int:
    print(json.dumps(mm_run.test(_config(args), args.checkpoint, args.work_dir), indent=1))
    return 0
