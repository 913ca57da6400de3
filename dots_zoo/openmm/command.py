"""`dots-zoo det` and `dots-zoo seg`: detection with MMDetection, segmentation with MMSegmentation."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..options.image_size import image_size
from ..runtime.atomic_write import check_output, write_file
from ..runtime.distributed import disconnecting
from . import check as mm_check
from . import predict as mm_predict
from . import run as mm_run
from .config import load_config
from .progress import headlines

NAMES = {"det": "detection with MMDetection", "seg": "segmentation with MMSegmentation"}
EXAMPLES = {
    "det": """examples:
  dots-zoo det check retinanet_dots_imagenet_fpn_1x_coco
  dots-zoo det train retinanet_dots_imagenet_light_fpn_bccd --data-root bccd --work-dir runs/bccd
  dots-zoo det test retinanet_dots_imagenet_light_fpn_bccd runs/bccd/best_*.pth --data-root bccd
  dots-zoo det curves runs/bccd -o curves.png
  dots-zoo det predict retinanet_dots_imagenet_light_fpn_bccd runs/bccd/best_*.pth a.jpg b.jpg -o boxes
  torchrun --nproc_per_node 8 -m dots_zoo det train retinanet_dots_imagenet_fpn_1x_coco \\
      --data-root coco --work-dir runs/coco""",
    "seg": """examples:
  dots-zoo seg check bisenetv1_dots_imagenet_4xb4-160k_cityscapes-1024x1024
  dots-zoo seg train bisenetv1_dots_imagenet_camvid --data-root camvid --work-dir runs/camvid
  dots-zoo seg test bisenetv1_dots_imagenet_camvid runs/camvid/best_*.pth --data-root camvid
  dots-zoo seg curves runs/camvid -o curves.png
  dots-zoo seg predict bisenetv1_dots_imagenet_camvid runs/camvid/best_*.pth a.jpg b.jpg -o labels
  torchrun --nproc_per_node 4 -m dots_zoo seg train \\
      bisenetv1_dots_imagenet_4xb4-160k_cityscapes-1024x1024 --data-root cityscapes --work-dir runs/city""",
}


@disconnecting()
def main(task: str, argv: Sequence[str]) -> int:
    """Run `dots-zoo det` or `seg` (the task) with the arguments that follow it."""
    args = _parser(task).parse_args(argv)
    result: int = args.run(args)
    return result


def detection(argv: Sequence[str]) -> int:
    """Run `dots-zoo det`."""
    return main("det", argv)


def segmentation(argv: Sequence[str]) -> int:
    """Run `dots-zoo seg`."""
    return main("seg", argv)


def _parser(task: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        f"dots-zoo {task}",
        description=f"{NAMES[task].capitalize()}. CONFIG: a file, or the name of a shipped one.",
        epilog=EXAMPLES[task],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND", title="commands")
    _add_train(_command(commands, task, "train", _train, "train a model"))
    _add_test(
        _command(
            commands, task, "test", _test, "evaluate a checkpoint, or an exported .onnx, on the test set"
        )
    )
    _add_predict(_command(commands, task, "predict", _predict, "draw what a checkpoint finds on images"))
    p = commands.add_parser("curves", help="draw the loss and the metrics of a training")
    p.set_defaults(run=_curves)
    p.add_argument("work_dir", type=Path, metavar="WORK_DIR", help="folder of the run")
    p.add_argument("-o", "--output", type=Path, required=True, help="curves.png")
    p = _command(commands, task, "check", _check, "count, train for one step and predict once, without data")
    p.add_argument("--input", metavar="HxW", help="size that MACs are counted at, where the config has none")
    p.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _command(commands: Any, task: str, name: str, run: object, text: str) -> argparse.ArgumentParser:
    p: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text)
    p.set_defaults(run=run, task=task, data_root=None)
    p.add_argument("config", metavar="CONFIG", help="a config file, or the name of a shipped one")
    p.add_argument("--genotype", help="build the backbone from this cell: a bundled name, a file or a text")
    p.add_argument(
        "--cfg-options", nargs="+", default=[], metavar="KEY=VALUE", help="entries of the config to change"
    )
    return p


def _add_train(p: argparse.ArgumentParser) -> None:
    p.add_argument("--work-dir", type=Path, required=True, help="folder of the run; new or empty")
    p.add_argument("--data-root", help="folder of the data, in place of the config's data_root")
    p.add_argument("--resume", action="store_true", help="resume from the last checkpoint in the folder")
    p.add_argument("--amp", action="store_true", help="mixed precision, on a GPU")


def _add_test(p: argparse.ArgumentParser) -> None:
    p.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    p.add_argument("--data-root", help="folder of the data, in place of the config's data_root")
    p.add_argument("--work-dir", type=Path, help="folder for logs; by default test/ beside the checkpoint")
    p.add_argument("--json", type=Path, metavar="FILE", help="write the metrics")


def _add_predict(p: argparse.ArgumentParser) -> None:
    p.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    p.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    p.add_argument("-o", "--output", type=Path, required=True, help="folder for drawn images and JSON")
    p.add_argument("--score", type=float, default=0.3, help="boxes are kept from this score on")


def _config(args: argparse.Namespace) -> Any:
    return load_config(
        args.config, args.task, genotype=args.genotype, data_root=args.data_root, options=args.cfg_options
    )


def _train(args: argparse.Namespace) -> int:
    run = mm_run.train(_config(args), args.work_dir, resume=args.resume, amp=args.amp)
    if not run:  # another process than torchrun's first
        return 0
    metrics = {name.removeprefix("val/"): value for name, value in run["last"].items()}
    shown = ", ".join(headlines(metrics)) or "no metrics"
    print(
        f"{run['config']}: {shown} on the validation images after {run['epochs']} epochs, "
        f"{run['steps']} steps and {run['seconds'] / 60:.1f} min; best checkpoint: {run['best'] or 'none'}; "
        f"written to {args.work_dir}"
    )
    return 0


def _test(args: argparse.Namespace) -> int:
    if args.json:
        check_output(args.json)
    folder = args.work_dir or args.checkpoint.parent / "test"
    metrics = mm_run.test(_config(args), args.checkpoint, folder)
    if args.json:
        write_file(args.json, json.dumps(metrics, indent=1).encode())
    for name, value in metrics.items():
        print(f"{name:<28} {value:.4g}")
    return 0


def _predict(args: argparse.Namespace) -> int:
    entries = mm_predict.predict(
        _config(args), args.task, args.checkpoint, args.images, args.output, score=args.score
    )
    for entry in entries:
        shares = [f"{name} {100 * share:.0f} %" for name, share in entry.get("shares", {}).items()]
        contents = ", ".join(shares) if shares else f"{len(entry['boxes'])} boxes"
        print(f"{entry['image']}: {contents}")
    print(f"drawn into {args.output}")
    return 0


def _curves(args: argparse.Namespace) -> int:
    from .plots import plot_curves

    print(f"drawing: {plot_curves(args.work_dir, args.output)}")
    return 0


def _check(args: argparse.Namespace) -> int:
    size = image_size(args.input) if args.input else None
    result = mm_check.check(_config(args), args.task, size)
    print(json.dumps(result, indent=1) if args.json else _check_lines(result))
    return 0


def _check_lines(result: dict[str, Any]) -> str:
    """Return the result of a check for a terminal."""
    height, width = result["input_size"]
    channels = result["channels"] and ", ".join(
        f"{chs}@{stride}" for chs, stride in zip(result["channels"], result["strides"], strict=True)
    )
    return "\n".join(
        [
            f"backbone    {result['model']}" + (f", channels@stride {channels}" if channels else ""),
            f"parameters  {result['parameters']:,}, {result['classes']} classes",
            f"MACs        {result['macs'] / 1e9:.2f} G at {height}x{width} (HxW): convolutions and products",
            f"training    loss {result['loss']:.4f}, {result['parameters_changed']} parameters changed",
            f"prediction  {result['prediction']}",
        ]
    )
