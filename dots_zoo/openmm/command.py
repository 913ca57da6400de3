"""`dots-zoo det` and `dots-zoo seg`: detection with MMDetection, segmentation with MMSegmentation."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..options.command_line import CommandLine, choose_subcommand
from ..options.declaration import REQUIRED, Option
from ..options.image_size import image_size
from ..runtime.distributed import disconnecting
from . import check as mm_check
from . import predict as mm_predict
from . import run as mm_run
from .config import load_config
from .progress import headlines

NAMES = {"det": "detection with MMDetection", "seg": "segmentation with MMSegmentation"}
COMMANDS = {
    "train": "train a model",
    "test": "evaluate a checkpoint, or an exported .onnx, on the test set",
    "predict": "draw what a checkpoint finds on images",
    "curves": "draw the loss and the metrics of a training",
    "check": "count, train for one step and predict once, without data",
}
CONFIGS = {"det": "retinanet_dots_imagenet_light_fpn_bccd", "seg": "bisenetv1_dots_imagenet_camvid"}
DATA = {"det": "bccd", "seg": "camvid"}
PROCESSES = {
    "det": "torchrun --nproc-per-node 8 -m dots_zoo det train retinanet_dots_imagenet_fpn_1x_coco "
    "--data-root coco -o runs/coco",
    "seg": "torchrun --nproc-per-node 4 -m dots_zoo seg train "
    "bisenetv1_dots_imagenet_4xb4-160k_cityscapes-1024x1024 --data-root cityscapes -o runs/city",
}
DATA_ROOT = Option("data_root", str | None, None, "folder of the data, in place of the config's data_root")


def detection(argv: Sequence[str]) -> int:
    """Run `dots-zoo det`."""
    return main("det", argv)


def segmentation(argv: Sequence[str]) -> int:
    """Run `dots-zoo seg`."""
    return main("seg", argv)


@disconnecting()
def main(task: str, argv: Sequence[str]) -> int:
    """Run `dots-zoo det` or `seg` (the task) with the arguments that follow it."""
    examples = [f"dots-zoo {task} {example(task, name)}" for name in COMMANDS]
    footer = "\n  ".join(["examples:", *examples, PROCESSES[task]])
    text = f"{NAMES[task].capitalize()}. CONFIG: a file, or the name of a shipped one."
    name, words = choose_subcommand(task, text, COMMANDS, argv, footer)
    return RUNS[name](task, command_line(task, name).parse(words))


def example(task: str, name: str) -> str:
    """Return a command line of a command."""
    config, data = CONFIGS[task], DATA[task]
    return {
        "train": f"train {config} --data-root {data} -o runs/{data}",
        "test": f"test {config} runs/{data}/best_*.pth --data-root {data}",
        "predict": f"predict {config} runs/{data}/best_*.pth a.jpg b.jpg -o drawn",
        "curves": f"curves runs/{data} -o curves.png",
        "check": f"check {config}",
    }[name]


def command_line(task: str, name: str) -> CommandLine:
    """Return the options of a command."""
    usage = {
        "train": "CONFIG -o DIR",
        "test": "CONFIG CHECKPOINT",
        "predict": "CONFIG CHECKPOINT IMAGE... -o DIR",
        "curves": "RUN -o FILE",
        "check": "CONFIG",
    }
    line = CommandLine(
        f"{task} {name}",
        f"{COMMANDS[name].capitalize()}.",
        usage[name],
        [f"{task} {example(task, name)}"],
        main=("data_root", "genotype"),
    )
    if name == "curves":
        line.positional("run", "folder of a training")
        line.add(Option("out", str, REQUIRED, "curves.png"))
        return line
    line.positional("config", "a config file, or the name of a shipped one")
    OPTIONS[name](line)
    text = "build the backbone from this cell: a bundled name, a file, a text, or the folder of a search"
    line.add(Option("genotype", str | None, None, text))
    # MMDetection's own syntax: several KEY=VALUE after one option.
    line.add(Option("cfg_options", tuple[str, ...], (), "entries of the config to change, KEY=VALUE"))
    return line


def command_lines() -> list[CommandLine]:
    """Return the options of every command of `dots-zoo det` and `dots-zoo seg`."""
    return [command_line(task, name) for task in NAMES for name in COMMANDS]


def _train_options(line: CommandLine) -> None:
    line.add(Option("out", str, REQUIRED, "folder of the run; new or empty"))
    line.add(DATA_ROOT)
    line.add(Option("resume", bool, False, "resume from the last checkpoint in the folder"))
    line.add(Option("amp", bool, False, "mixed precision, on a GPU"))


def _test_options(line: CommandLine) -> None:
    line.positional("checkpoint", "weights of a training, or an exported .onnx")
    line.add(Option("out", str | None, None, "folder for logs; test/ beside the checkpoint if not given"))
    line.add(DATA_ROOT)
    line.add(Option("json", bool, False, "print the metrics as JSON and nothing else"))


def _predict_options(line: CommandLine) -> None:
    line.positional("checkpoint", "weights of a training")
    line.positional("images", "image files", nargs="+", metavar="IMAGE")
    line.add(Option("out", str, REQUIRED, "folder for drawn images and JSON"))
    line.add(Option("score", float, 0.3, "boxes are kept from this score on"))


def _check_options(line: CommandLine) -> None:
    line.add(Option("input", str | None, None, "HxW that MACs are counted at, where the config has none"))
    line.add(Option("json", bool, False, "print JSON and nothing else"))


OPTIONS = {
    "train": _train_options,
    "test": _test_options,
    "predict": _predict_options,
    "check": _check_options,
}


def _config(task: str, values: Mapping[str, Any]) -> Any:
    return load_config(
        values["config"],
        task,
        genotype=values["genotype"],
        data_root=values.get("data_root"),
        options=values["cfg_options"],
    )


def _train(task: str, values: Mapping[str, Any]) -> int:
    out = Path(values["out"])
    run = mm_run.train(_config(task, values), out, resume=values["resume"], amp=values["amp"])
    if not run:  # another process than torchrun's first
        return 0
    metrics = {name.removeprefix("val/"): value for name, value in run["last"].items()}
    shown = ", ".join(headlines(metrics)) or "no metrics"
    print(
        f"{run['config']}: {shown} on the validation images after {run['epochs']} epochs, "
        f"{run['steps']} steps and {run['seconds'] / 60:.1f} min; best checkpoint: {run['best'] or 'none'}; "
        f"written to {out}"
    )
    return 0


def _test(task: str, values: Mapping[str, Any]) -> int:
    checkpoint = Path(values["checkpoint"])
    folder = checkpoint.parent / "test" if values["out"] is None else Path(values["out"])
    metrics = mm_run.test(_config(task, values), checkpoint, folder)
    if values["json"]:
        print(json.dumps(metrics, indent=1))
        return 0
    for name, value in metrics.items():
        print(f"{name:<28} {value:.4g}")
    return 0


def _predict(task: str, values: Mapping[str, Any]) -> int:
    images, out = [Path(image) for image in values["images"]], Path(values["out"])
    config, checkpoint = _config(task, values), Path(values["checkpoint"])
    entries = mm_predict.predict(config, task, checkpoint, images, out, score=values["score"])
    for entry in entries:
        shares = [f"{name} {100 * share:.0f} %" for name, share in entry.get("shares", {}).items()]
        contents = ", ".join(shares) if shares else f"{len(entry['boxes'])} boxes"
        print(f"{entry['image']}: {contents}")
    print(f"drawn into {out}")
    return 0


def _curves(task: str, values: Mapping[str, Any]) -> int:
    from .plots import plot_curves

    print(f"drawing: {plot_curves(Path(values['run']), Path(values['out']))}")
    return 0


def _check(task: str, values: Mapping[str, Any]) -> int:
    size = image_size(values["input"]) if values["input"] else None
    result = mm_check.check(_config(task, values), task, size)
    print(json.dumps(result, indent=1) if values["json"] else _check_lines(result))
    return 0


RUNS = {"train": _train, "test": _test, "predict": _predict, "curves": _curves, "check": _check}


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
