"""Render the model card of a training from its run.json."""

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

The cell `{genotype}` as `{architecture}`, trained on {data}.

| | |
|---|---|
| accuracy | {accuracy:.2f} % of {images} {evaluated} images (top five: {top5:.2f} %) |
| loss | {loss:.4f} |
| parameters | {parameters:,} |
| MACs (convolutions, linear layers) | {macs:,} |
| epochs | {epochs}, {hours:.2f} hours on {where} |
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


def card(run: Mapping[str, Any], curves: Path | None) -> str:
    """Return the card as Markdown, with the header that model hubs read; curves: a picture beside it."""
    score, machine = run["score"], run["machine"]
    text = CARD.format(
        **{
            k: run[k]
            for k in ("model", "genotype", "architecture", "data", "evaluated", "parameters", "macs")
        },
        accuracy=100 * score["accuracy"],
        top5=100 * score["top5"],
        images=score["images"],
        loss=score["loss"],
        epochs=run["epochs"],
        hours=run["hours"],
        where=machine["gpu"] or f"{machine['threads']} CPU threads",
        seed=run["settings"]["seed"],
    )
    return text if curves is None else text + CURVES.format(name=curves.name)
