"""Say what a training did: lines on a terminal, and the model card, rendered from its run.json."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CARD = """\
---
library_name: timm
license: apache-2.0
tags: [image-classification, dots_zoo]
---

# {model}

{network}, trained on {data}.

| | |
|---|---|
{scores}
| parameters | {parameters:,} |
| MACs (convolutions, linear layers) | {macs:,} |
| epochs | {epochs}, {time} on {where} |
| seed | {seed} |

```python
import dots_zoo, timm  # importing dots_zoo registers the architecture

model = timm.create_model("local-dir:PATH/OF/THIS/FOLDER", pretrained=True)
```

`metrics.jsonl` holds the figures of every epoch, `config.yaml` every number of the training
(`dots-zoo train --config config.yaml --out FOLDER` repeats it), `run.json` versions and machine.
"""
CURVES = """
![Loss, accuracy and learning rate]({name})
"""


def summary(run: Mapping[str, Any], out: Path) -> str:
    """Format the result of a training: its scores, where they lie, and the next commands to type."""
    lines = [
        f"{run['model']}: {_accuracy(run['score'])} test images of {run['data']} (loss "
        f"{run['score']['loss']:.4f}) after {run['epochs']} epochs in {duration(run['seconds'])}, "
        f"{run['parameters']:,} parameters, {run['macs'] / 1e6:.1f} M MACs"
    ]
    if "best" in run:
        best = run["best"]
        lines.append(
            f"best epoch by validation, {best['epoch'] + 1}: {_accuracy(best['validation'])} validation "
            f"images, {_accuracy(best['score'])} test images; in {out / 'best'}"
        )
    folder = shlex.quote(str(out))
    return "\n".join(
        [
            *lines,
            f"written to {out}: model.safetensors, config.json, README.md, run.json, metrics.jsonl",
            f"next: dots-zoo predict {folder} photo.png",
            f"      dots-zoo export {folder} -o {shlex.quote(f'{out.name}.onnx')}",
        ]
    )


def _accuracy(score: Mapping[str, float]) -> str:
    return f"{100 * score['accuracy']:.2f} % of {score['images']}"


def duration(seconds: float) -> str:
    """Format a time in the unit that suits it."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} s"


def card(run: Mapping[str, Any], curves: Path | None) -> str:
    """Return the card as Markdown, with the header that model hubs read; curves: a picture beside it."""
    machine = run["machine"]
    architecture = f"`{run['architecture']}`"
    text = CARD.format(
        **{k: run[k] for k in ("model", "data", "parameters", "macs", "epochs")},
        network=f"The cell `{run['genotype']}` as {architecture}" if "genotype" in run else architecture,
        scores="\n".join(_rows(run)),
        time=duration(run["seconds"]),
        where=machine["gpu"] or f"{machine['threads']} CPU threads",
        seed=run["settings"]["seed"],
    )
    return text if curves is None else text + CURVES.format(name=curves.name)


def _rows(run: Mapping[str, Any]) -> list[str]:
    """Return the rows of the table that hold the scores of the last and, where it is kept, the best epoch."""
    rows = [f"| accuracy | {_images(run['score'], 'test')} |", f"| loss | {run['score']['loss']:.4f} |"]
    if "best" in run:
        best = run["best"]
        rows.append(
            f"| best epoch by validation, in `best/` | {best['epoch'] + 1}: "
            f"{_images(best['validation'], 'validation')}, {_images(best['score'], 'test')} |"
        )
    return rows


def _images(score: Mapping[str, float], images: str) -> str:
    five = f" (top five: {100 * score['top5']:.2f} %)" if "top5" in score else ""
    return f"{100 * score['accuracy']:.2f} % of {score['images']} {images} images{five}"
