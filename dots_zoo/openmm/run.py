"""Train and test with mmengine's Runner: `dots-zoo det|seg train` and `test`.

Started by torchrun, every process takes part: `torchrun --nproc_per_node 8 -m dots_zoo det train CONFIG ...`.
"""

import json
import os
import re
import shutil
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.model import is_model_wrapper, revert_sync_batchnorm
from mmengine.runner import Runner

from ..runtime.atomic_write import write_file
from ..runtime.environment import environment
from ..runtime.errors import DotsZooError
from ..runtime.run_folder import check_folder
from .backbone import DotsBackbone
from .check_data import check_data
from .config import SCOPES, backbone_of, load_weights
from .onnx_model import OnnxModel
from .progress import Progress, quiet

PACKAGES = ("torch", "torchvision", "timm", "mmengine", "numpy")


def train(cfg: Any, folder: Path, *, resume: bool = False, amp: bool = False) -> dict[str, Any]:
    """Train as configured, into `folder`; return what its run.json holds, {} in torchrun's other ranks.

    Raises DotsZooError, with the folder as it was, where it is taken, where the data do not fit, and where
    amp is asked for without a GPU.
    """
    check_folder(folder, "det or seg train", resume=resume, holds_run=_holds_run)
    if amp and not torch.cuda.is_available():
        raise DotsZooError(
            "--amp: mmengine's mixed precision needs a GPU, and torch finds none: leave it out"
        )
    notes = check_data(cfg, ("train_dataloader", "val_dataloader"))
    _set_up(cfg, folder)
    last = _last_checkpoint(folder) if resume else None
    cfg.resume, cfg.load_from = last is not None, str(last) if last else cfg.get("load_from")
    if amp:
        cfg.optim_wrapper.update(type="AmpOptimWrapper", loss_scale="dynamic")
    begun, used = time.monotonic(), time.process_time()
    with _whole_or_not_at_all(folder), quiet() as out:
        runner = _runner(cfg)
        if last is None:
            notes += [part.origin() for part in runner.model.modules() if isinstance(part, DotsBackbone)]
        if runner.rank == 0:
            print(*notes, sep="\n", end="\n" * bool(notes), file=out, flush=True)
        progress = Progress(folder, out)
        runner.register_hook(progress)
        runner.train()
    run = {
        **_summary(cfg, folder, runner, progress.rows),
        "seconds": round(time.monotonic() - begun, 1),
        "cpu_seconds": round(time.process_time() - used, 1),  # this process's, without loader processes
    }
    if runner.rank != 0:
        return {}
    write_file(folder / "run.json", json.dumps(run, indent=1).encode())
    return run


def test(cfg: Any, checkpoint: Path, folder: Path) -> dict[str, float]:
    """Return the metrics of a checkpoint, or of an exported .onnx, on the test set; log into `folder`.

    Raises DotsZooError where the data or the checkpoint do not fit.
    """
    if not checkpoint.is_file():
        raise DotsZooError(f"{checkpoint}: no such checkpoint file")
    _check_log_folder(cfg, folder)
    check_data(cfg, ("test_dataloader",))
    _set_up(cfg, folder)
    cfg.load_from = None  # loaded strictly, below
    with _whole_or_not_at_all(folder), quiet():
        runner = _runner(cfg)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        if checkpoint.suffix == ".onnx":
            runner.model = OnnxModel(checkpoint, SCOPES[cfg.default_scope])
        else:
            load_weights(model, checkpoint)
        return {name: float(value) for name, value in runner.test().items()}


def _holds_run(folder: Path) -> bool:
    """Return whether mmengine has run here: it leaves a checkpoint, or the log of a start."""
    starts = [path for path in folder.iterdir() if re.fullmatch(r"\d{8}_\d{6}", path.name)]
    return (
        any((path / f"{path.name}.log").is_file() for path in starts) or _last_checkpoint(folder) is not None
    )


def _check_log_folder(cfg: Any, folder: Path) -> None:
    """Refuse a folder of somebody else's with a file that mmengine would write the resolved config over."""
    config = folder / Path(cfg.filename).name
    if config.exists() and not _holds_run(folder):
        raise DotsZooError(
            f"{config}: expected a folder without it, as the resolved config is written there; give another "
            "--out"
        )


def _last_checkpoint(folder: Path) -> Path | None:
    """Return the last whole checkpoint of a run, leaving out one that was being written when it was killed.

    mmengine's own `last_checkpoint` is written after it and may be empty.
    """
    checkpoints = [path for path in folder.glob("*_*.pth") if re.fullmatch(r"(epoch|iter)_\d+", path.stem)]
    whole = [path for path in checkpoints if zipfile.is_zipfile(path)]  # the zip directory is written last
    return max(whole, key=lambda path: int(path.stem.partition("_")[2]), default=None)


def _set_up(cfg: Any, folder: Path) -> None:
    """Set the entries of a config that depend on the command: folder, logging, launcher."""
    cfg.work_dir, cfg.log_level = str(folder), "WARNING"
    cfg.experiment_name = f"{folder.name}-{time.time_ns()}"  # mmengine keeps loggers and writers by name
    cfg.merge_from_dict({"visualizer.name": cfg.experiment_name})
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # torchrun's
        cfg.launcher = "pytorch"
        if not torch.cuda.is_available():  # mmengine takes a GPU for granted here
            if not torch.distributed.is_initialized():
                torch.distributed.init_process_group("gloo")
            cfg.model_wrapper_cfg = {"type": "MMDistributedDataParallel", "device_ids": None}


def _runner(cfg: Any) -> Any:
    runner = Runner.from_cfg(cfg)
    if not torch.cuda.is_available():
        runner.model = revert_sync_batchnorm(runner.model)  # it runs on GPUs only
    return runner


@contextmanager
def _whole_or_not_at_all(folder: Path) -> Iterator[None]:
    """Raise errors of the data as one sentence, and remove a new folder that has no checkpoint yet."""
    new = not folder.exists()
    try:
        yield
    except BaseException as error:
        if new and folder.is_dir() and not any(folder.glob("*.pth")):
            shutil.rmtree(folder)
        sentence = _explain(error)
        if sentence is None:
            raise
        raise DotsZooError(sentence) from error


def _explain(error: BaseException) -> str | None:
    """Return one sentence for a known error, else None. Loader processes put it under a traceback."""
    last = str(error).strip().rpartition("\n")[2]
    if isinstance(error, DotsZooError):
        return last.removeprefix("dots_zoo.runtime.errors.DotsZooError: ")
    if match := re.search(r"failed to load image: (.*)", last):
        return f"{match[1]}: not an image that can be decoded: replace it, or take it out of the data"
    if "more than 1 value per channel" in last:
        return (
            "train_dataloader: a batch of one image cannot train this batch norm: set batch_size to 2 or more"
        )
    return None


def _summary(cfg: Any, folder: Path, runner: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return what run.json holds, but for the times."""
    best = max(folder.glob("best_*.pth"), key=lambda path: path.stat().st_mtime, default=None)
    return {
        "schema": 1,
        "kind": "mm training",
        "config": Path(cfg.filename).stem,
        "backbone": (backbone_of(cfg.model) or {}).get("model_name"),
        "parameters": sum(p.numel() for p in runner.model.parameters()),
        "steps": runner.iter,
        "epochs": runner.epoch,
        "best": best.name if best else None,
        "last": rows[-1] if rows else {},
        **environment(PACKAGES),
    }
