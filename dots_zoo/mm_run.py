"""Training and testing with mmengine's Runner: `dots-zoo det|seg train|test`."""

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.runner import Runner

from .errors import DotsZooError
from .files import write_file
from .mm_config import backbone_of, load_weights
from .mm_progress import Progress, quiet
from .surroundings import surroundings

PACKAGES = ("torch", "torchvision", "timm", "mmengine", "numpy")


def train(cfg: Any, folder: Path, *, resume: bool = False, amp: bool = False) -> dict[str, Any]:
    """Train as a config says, into `folder`; return what its run.json holds."""
    if folder.exists() and not resume and (not folder.is_dir() or any(folder.iterdir())):
        raise DotsZooError(f"{folder}: expected a new or empty folder; choose another, or go on with --resume")
    cfg.work_dir, cfg.resume, cfg.log_level = str(folder), resume, "WARNING"
    if amp:
        cfg.optim_wrapper.type, cfg.optim_wrapper.loss_scale = "AmpOptimWrapper", "dynamic"
    begun = time.monotonic()
    with quiet() as out:
        runner = Runner.from_cfg(cfg)
        progress = Progress(folder, out)
        runner.register_hook(progress)
        runner.train()
    best = max(folder.glob("best_*.pth"), key=lambda path: path.stat().st_mtime, default=None)
    run = {
        "schema": 1,
        "kind": "mm training",
        "config": Path(cfg.filename).stem,
        "backbone": (backbone_of(cfg.model) or {}).get("model_name"),
        "parameters": sum(p.numel() for p in runner.model.parameters()),
        "steps": runner.iter,
        "epochs": runner.epoch,
        "seconds": round(time.monotonic() - begun, 1),
        "best": best.name if best else None,
        "last": progress.rows[-1] if progress.rows else {},
        **surroundings(PACKAGES),
    }
    write_file(folder / "run.json", json.dumps(run, indent=1).encode())
    return run


def test(cfg: Any, checkpoint: Path, folder: Path) -> dict[str, float]:
    """The metrics of a checkpoint on the config's test set."""
    cfg.work_dir, cfg.log_level, cfg.load_from = str(folder), "WARNING", None
    with quiet():
        runner = Runner.from_cfg(cfg)
        load_weights(runner.model, checkpoint)
        return {name: float(value) for name, value in runner.test().items()}
