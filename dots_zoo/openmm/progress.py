"""Report a run of mmengine's Runner: a line now and then, a line per evaluation, and `metrics.jsonl`."""

import contextlib
import io
import json
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from torch import Tensor

from ..runtime.atomic_write import write_file

EVERY = 60.0  # seconds between two lines


@contextlib.contextmanager
def quiet() -> Iterator[TextIO]:
    """Silence prints and warnings; yield the real standard output."""
    out = sys.stdout
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield out


class Progress(Hook):  # type: ignore[misc]
    """Print and record a training: rows of step, epoch, loss, learning rate, seconds and val/... metrics.

    A resumed run continues from its checkpoint: rows of later steps are dropped.
    """

    priority = "LOWEST"

    def __init__(self, folder: Path, out: TextIO) -> None:
        self.path, self.out = folder / "metrics.jsonl", out
        self.rows: list[dict[str, Any]] = []
        self.losses: list[float] = []
        self.begun = self.printed = self.marked = time.monotonic()
        self.first = 0

    def before_train(self, runner: Any) -> None:
        self.first = runner.iter
        self.begun = self.printed = self.marked = time.monotonic()
        if self.path.is_file():
            rows = [json.loads(line) for line in self.path.read_text("utf-8").splitlines()]
            self.rows = [row for row in rows if row["step"] <= runner.iter]

    def after_train_iter(
        self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: dict[str, Tensor] | None = None
    ) -> None:
        self.losses.append(float((outputs or {})["loss"]))
        if time.monotonic() - self.printed > EVERY:
            self.printed = time.monotonic()
            self._print(f"step {runner.iter + 1} of {runner.max_iters}: loss {self.losses[-1]:.4f}", runner)

    def after_val_epoch(self, runner: Any, metrics: dict[str, float] | None = None) -> None:
        now = time.monotonic()
        row: dict[str, Any] = {"step": runner.iter, "epoch": runner.epoch}
        if self.losses:
            row["loss"] = sum(self.losses) / len(self.losses)
        row["learning_rate"] = runner.optim_wrapper.get_lr()["lr"][0]
        row["seconds"] = now - self.marked
        row |= {f"val/{name}": float(value) for name, value in (metrics or {}).items()}
        self.losses, self.marked = [], now
        self.rows.append(row)
        if is_main_process():
            write_file(self.path, "".join(json.dumps(row) + "\n" for row in self.rows).encode())
        epoch = f"epoch {runner.epoch} of {runner.max_epochs}, " if runner.max_epochs > 1 else ""
        loss = [f"loss {row['loss']:.4f}"] if "loss" in row else []
        shown = ", ".join([*loss, *headlines(metrics or {})]) or "no metrics"
        self._print(f"{epoch}step {runner.iter} of {runner.max_iters}: {shown}", runner)

    def _print(self, text: str, runner: Any) -> None:
        done = runner.iter - self.first
        if done and is_main_process():
            left = (time.monotonic() - self.begun) / done * (runner.max_iters - runner.iter)
            print(f"{text}, {left / 60:.0f} min left", file=self.out, flush=True)


def headlines(metrics: Mapping[str, float]) -> list[str]:
    """Return the most important metrics, with their values."""
    first = ("bbox_mAP", "bbox_mAP_50", "mIoU", "aAcc")
    return [f"{name} {value:.4g}" for name, value in metrics.items() if name.endswith(first)]
