"""Write a training as a folder that timm loads: `timm.create_model('local-dir:FOLDER', pretrained=True)`.

The folder holds `model.safetensors`, `config.json` (what timm reads), `README.md` (a model card),
`config.yaml` (a training with `--config` of it is the same training), `metrics.jsonl` (a line an epoch),
`curves.png`, `tensorboard/`, `run.json`, and `checkpoint/`, from which the training resumes. Where images
were held out, `best/` is a folder that timm loads as well, of the epoch with the best validation accuracy.
Every file but those of TensorBoard is whole or absent.
"""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from accelerate import Accelerator  # type: ignore[import-untyped]
from safetensors.torch import save
from torch import nn
from torch.utils.tensorboard import SummaryWriter

from ..data.datasets import Data
from ..genotype import bundled_names
from ..hub import hub_config
from ..macs import count
from ..network import CellNet
from ..runtime.atomic_write import write_file
from ..runtime.best_effort import attempt
from ..runtime.distributed import processes_of
from ..runtime.environment import environment
from ..runtime.errors import DotsZooError
from ..runtime.free_memory import out_of_memory_as_error
from ..runtime.run_folder import check_run_folder, make_folder
from ..runtime.sigterm import sigterm_flag
from .loop import Checkpoint, fit
from .model import Built, ModelOptions, as_trained, build, left_out
from .plots import plot_curves
from .recipe import Recipe
from .score import Score, score
from .split import split, with_batch_that_fits
from .state import Row, State, best_epoch
from .summary import card

BEST = "best"  # folder of the best epoch, in that of the training
WHERE = ("data_root", "download", "threads")  # data options that do not change the result

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Task:
    """The constants of a training, once all was checked."""

    built: Built
    data: Data
    recipe: Recipe
    accelerator: Accelerator
    out: Path
    settings: Mapping[str, Any]


OUT_OF_MEMORY = "choose a smaller --batch-size or a smaller --image-size"


def run_training(
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
    """Train `model` on `data`, write the run into `out`, return the contents of run.json in every process.

    resume: resume from the checkpoint in `out`, or begin where there is none. Raises DotsZooError where `out`
    holds something and resume is not set, or something else than a training, where the checkpoint is of
    another cell, other weights, images or options, and where the input cannot be used; SystemExit with 143
    after SIGTERM, once the step is saved.
    """
    accelerator = Accelerator(mixed_precision=recipe.precision)
    processes = processes_of(accelerator)
    requested, recipe = recipe, with_batch_that_fits(recipe, data, processes.count)
    split(data, recipe, processes.count)  # refused before a folder is made
    built = build(model, options, data, recipe)
    _refuse_size(built, data)
    if options.pretrained:
        data = as_trained(data, built.network)
    settings = _plain({"network": _kept(model, built), **data.options, **asdict(options), **asdict(recipe)})
    identity = _plain({"network": built.identity, "data": _content(data)})
    if not processes.agree(json.dumps([settings, identity], sort_keys=True)):
        processes.end("training: expected the same options and files in all processes")
    processes.first_does(partial(_prepare, out, resume, settings))
    for sentence in _notices(built, data, requested, recipe) if processes.first else ():
        _log.warning("%s: %s", built.reference.name, sentence)
    task = _Task(built, data, recipe, accelerator, out, settings)
    with sigterm_flag() as stop, out_of_memory_as_error("train", OUT_OF_MEMORY):
        state = fit(
            built.network,
            data,
            recipe,
            accelerator=accelerator,
            checkpoint=Checkpoint(out / "checkpoint", checkpoint_seconds, identity, stop),
            on_epoch=_log_to(out) if processes.first else lambda history: None,
            progress=progress,
        )
    results = _results(task, state)
    processes.first_does(partial(_finish, task, state, results))
    return results


def _refuse_size(built: Built, data: Data) -> None:
    """Raise DotsZooError where the network cannot run images of the data's size."""
    try:
        count(built.network, (data.in_chans, data.size, data.size))
    except DotsZooError as error:
        raise DotsZooError(
            f"{built.reference.name}: {error}; image_size gives images of another size"
        ) from error


def _notices(built: Built, data: Data, requested: Recipe, recipe: Recipe) -> list[str]:
    """Return a sentence for everything in a recipe that is not done as it says, or does harm."""
    sentences, cutout = left_out(built.network, recipe), recipe.augmentation.cutout
    if cutout >= data.size:
        sentences.append(f"augmentation.cutout {cutout} blanks most of an image of {data.size}x{data.size}")
    if recipe.batch_size != requested.batch_size:
        sentences.append(
            f"batch_size is {recipe.batch_size}, not {requested.batch_size}: all training images"
        )
    if recipe.warm_up < recipe.warm_up_epochs:
        sentences.append(
            f"warm_up_epochs is {recipe.warm_up:g}, not {recipe.warm_up_epochs:g}: at most a fifth of all "
            "epochs"
        )
    return sentences


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


def _log_to(out: Path) -> Callable[[list[Row]], None]:
    # Created on the first epoch, so never by a training that is refused.
    board = cache(partial(SummaryWriter, str(out / "tensorboard")))

    def on_epoch(history: list[Row]) -> None:
        _write_metrics(out, history)
        for name, value in history[-1].items():
            board().add_scalar(name, value, int(history[-1]["epoch"]))
        board().flush()

    return on_epoch


def _plain(table: Mapping[str, Any]) -> dict[str, Any]:
    plain: dict[str, Any] = json.loads(json.dumps(table))  # tuples as lists
    return plain


def _write_metrics(out: Path, history: Sequence[Row]) -> None:
    write_file(out / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in history).encode())


def _results(task: _Task, state: State) -> dict[str, Any]:
    """Return run.json; where images were held out the test images are looked at here, and only here."""
    built, data, recipe, last = task.built, task.data, task.recipe, state.history[-1]
    best = best_epoch(state.history) if state.best else None
    results: dict[str, Any] = {"score": _figures(last, "test")}
    if recipe.validation:
        results = {"score": _test(task, state.kept), "validation": _figures(last, "validation")}
    if best is not None:
        row = next(row for row in state.history if row["epoch"] == best)
        final = state.weights()
        final = {name: tensor.clone() for name, tensor in final.items()}
        state.kept.load_state_dict(state.best, strict=False)  # all but the auxiliary head
        results["best"] = {
            "epoch": best,
            "validation": _figures(row, "validation"),
            "score": _test(task, state.kept),
        }
        state.kept.load_state_dict(final, strict=False)
    if isinstance(built.network, CellNet):
        built.network.aux_head = None  # neither kept nor counted
    costs = count(built.network, (data.in_chans, data.size, data.size))
    genotype = getattr(built.network, "genotype", None)
    return {
        "schema": 1,
        "kind": "training",
        "model": built.reference.name,
        "architecture": built.reference.architecture,
        **({} if genotype is None else {"genotype": genotype.name}),
        "data": data.name,
        **results,
        "epochs": recipe.epochs,
        "seconds": round(sum(row["seconds"] for row in state.history), 1),
        "parameters": costs.params,
        "macs": costs.macs,
        "settings": task.settings,
        **environment(("torch", "torchvision", "timm", "accelerate")),
    }


def _test(task: _Task, network: nn.Module) -> dict[str, float]:
    return score(network, task.data, task.accelerator).figures


def _figures(row: Row, images: str) -> dict[str, float]:
    """Return the figures that a row has of the test or the validation images."""
    figures = {name: row.get(f"{images}_{name}") for name in Score.__dataclass_fields__}
    return {name: value for name, value in figures.items() if value is not None}


def _finish(task: _Task, state: State, run: Mapping[str, Any]) -> None:
    """Write what the folder holds of a training that has ended."""
    out = task.out
    _write_metrics(out, state.history)  # again, in case a run was killed before its last row was written
    config = json.dumps(_timm_config(task.built, task.data), indent=2).encode()
    folders = {out: state.weights(), **({out / BEST: state.best} if state.best else {})}
    for folder, weights in folders.items():
        make_folder(folder)
        tensors = {name: tensor.contiguous() for name, tensor in weights.items()}
        write_file(folder / "model.safetensors", save(tensors, {"format": "pt"}))
        write_file(folder / "config.json", config)
    write_file(out / "run.json", json.dumps(run, indent=2).encode())
    curves = out / "curves.png"
    drawn = attempt(str(curves), partial(plot_curves, out / "metrics.jsonl", curves))
    write_file(out / "README.md", card(run, drawn).encode())


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
