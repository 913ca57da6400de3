"""Write a training as a folder that timm loads: `timm.create_model('local-dir:FOLDER', pretrained=True)`.

The folder holds `model.safetensors`, `config.json` (what timm reads), `README.md` (a model card),
`config.yaml` (a training with `--config` of it is the same training), `metrics.jsonl` (a line an epoch),
`curves.png`, `tensorboard/`, `run.json`, and `checkpoint/`, from which the training resumes. Every file but
those of TensorBoard is whole or absent.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from accelerate import Accelerator  # type: ignore[import-untyped]
from safetensors.torch import save
from torch.utils.tensorboard import SummaryWriter

from ..data.datasets import Data
from ..genotype import bundled_names
from ..hub import hub_config
from ..macs import count
from ..runtime.atomic_write import write_file
from ..runtime.best_effort import attempt
from ..runtime.distributed import processes_of
from ..runtime.environment import environment
from ..runtime.run_folder import check_run_folder, make_folder
from ..runtime.sigterm import sigterm_flag
from .evaluate import Score
from .loop import Checkpoint, fit, training_part
from .model import Built, ModelOptions, as_trained, build
from .model_card import card
from .plots import plot_curves
from .recipe import Recipe
from .state import Row, State

WHERE = ("data_root", "download", "threads")  # data options that do not change the result


def train(
    model: str,
    options: ModelOptions,
    data: Data,
    recipe: Recipe,
    out: Path,
    *,
    resume: bool = False,
    checkpoint_seconds: float = 300.0,
    progress: bool = True,
) -> dict[str, Any]:
    """Train `model` on `data`, write the run into `out`, return the contents of run.json.

    resume: resume from the checkpoint in `out`, or begin where there is none. Raises DotsZooError where `out`
    holds something and resume is not set, or something else than a training, where the checkpoint is of
    another cell, other weights, images or options, and where the input cannot be used; SystemExit with 143
    after SIGTERM, once the step is saved.
    """
    accelerator = Accelerator(mixed_precision=recipe.precision)
    processes = processes_of(accelerator)
    training_part(data, recipe, processes.count)  # refused before a folder is made
    built = build(model, options, data, recipe)
    if options.pretrained:
        data = as_trained(data, built.network)
    settings = _plain({"model": _kept(model, built), **data.options, **asdict(options), **asdict(recipe)})
    identity = _plain({"network": built.identity, "data": _content(data)})
    if not processes.agree(json.dumps([settings, identity], sort_keys=True)):
        processes.end("training: expected the same options and files in all processes")
    processes.first_does(partial(_prepare, out, resume, settings))
    with sigterm_flag() as stop:
        state = fit(
            built.network,
            data,
            recipe,
            accelerator=accelerator,
            checkpoint=Checkpoint(out / "checkpoint", checkpoint_seconds, identity, stop),
            on_epoch=_log_to(out, recipe.epochs) if processes.first else lambda history: None,
            progress=progress,
        )
    return _finish(out, built, data, recipe, state, settings) if processes.first else {}


def _kept(model: str, built: Built) -> str:
    """Return the network's name for config.yaml: the genotype as JSON where it was read from a file."""
    if not built.reference.cell or model in bundled_names():
        return model
    return json.dumps(json.loads(built.reference.arguments["genotype"]))


def _content(data: Data) -> dict[str, Any]:
    """Return the identity of the data by content: its options without those of WHERE, and its fingerprint."""
    kept = {name: value for name, value in data.options.items() if name not in WHERE}
    return {**kept, "images": data.fingerprint[:16]}


def _prepare(out: Path, resume: bool, settings: Mapping[str, Any]) -> None:
    check_run_folder(out, "train", resume=resume)
    make_folder(out)
    if not (out / "checkpoint").is_dir():  # else fit() checks that it is this training's
        header = "# dots-zoo train --config config.yaml --out FOLDER\n"
        write_file(out / "config.yaml", (header + yaml.safe_dump(settings, sort_keys=False)).encode())


def _log_to(out: Path, epochs: int) -> Callable[[list[Row]], None]:
    # Created on the first epoch, so never by a training that is refused.
    board = cache(partial(SummaryWriter, str(out / "tensorboard")))

    def on_epoch(history: list[Row]) -> None:
        _write_metrics(out, history)
        for name, value in history[-1].items():
            board().add_scalar(name, value, int(history[-1]["epoch"]))
        board().flush()
        print(line(history[-1], epochs), flush=True)

    return on_epoch


def line(row: Row, epochs: int) -> str:
    """Format the metrics of an epoch as one line."""
    percent = 100 * row["accuracy"]
    text = f"epoch {row['epoch'] + 1:.0f} of {epochs}: loss {row['loss']:.4f}, accuracy {percent:.2f} %"
    if "held_accuracy" in row:
        text += f", held out {100 * row['held_accuracy']:.2f} %"
    return f"{text}, {row['seconds']:.0f} s"


def summary(run: Mapping[str, Any], out: Path) -> str:
    """Format the result of a training as one line."""
    score = run["score"]
    return (
        f"{run['model']}: {100 * score['accuracy']:.2f} % of {score['images']} {run['evaluated']} images of "
        f"{run['data']} (loss {score['loss']:.4f}) after {run['epochs']} epochs in {run['hours']:.2f} h, "
        f"{run['parameters']:,} parameters, {run['macs'] / 1e6:.1f} M MACs; written to {out}"
    )


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(table))  # tuples as lists
    return plain


def _write_metrics(out: Path, history: Sequence[Row]) -> None:
    write_file(out / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in history).encode())


def _finish(
    out: Path, built: Built, data: Data, recipe: Recipe, state: State, settings: Mapping[str, Any]
) -> dict[str, Any]:
    _write_metrics(out, state.history)  # again, in case a run was killed before its last row was written
    weights = {k: v.contiguous() for k, v in state.kept.state_dict().items() if not k.startswith("aux_head.")}
    write_file(out / "model.safetensors", save(weights, {"format": "pt"}))
    built.network.aux_head = None  # neither kept nor counted
    write_file(out / "config.json", json.dumps(_timm_config(built, data), indent=2).encode())
    costs = count(built.network, (data.in_chans, data.size, data.size))
    run = {
        "schema": 1,
        "kind": "training",
        "model": built.reference.name,
        "architecture": built.reference.architecture,
        "genotype": built.network.genotype.name,
        "data": data.name,
        "evaluated": "held-out training" if recipe.validation else "test",
        "score": {name: state.history[-1][f"held_{name}"] for name in Score.__dataclass_fields__},
        "epochs": recipe.epochs,
        "hours": round(sum(row["seconds"] for row in state.history) / 3600, 3),
        "parameters": costs.params,
        "macs": costs.macs,
        "settings": settings,
        **environment(("torch", "torchvision", "timm", "accelerate")),
    }
    write_file(out / "run.json", json.dumps(run, indent=2).encode())
    curves = out / "curves.png"
    drawn = attempt(str(curves), partial(plot_curves, out / "metrics.jsonl", curves))
    write_file(out / "README.md", card(run, drawn).encode())
    return run


def _timm_config(built: Built, data: Data) -> dict[str, Any]:
    """Return config.json, which timm and transformers read."""
    return hub_config(
        built.network,
        label_names=data.class_names or (),
        data_config={
            "input_size": (data.in_chans, data.size, data.size),
            "mean": data.mean,
            "std": data.std,
            "interpolation": "bilinear",
            "crop_pct": 0.875 if data.name == "image_folder" else 1.0,
        },
    )
