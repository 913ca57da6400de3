"""Export weights small enough to ship with the package: convolutions in float16, norms and biases unchanged.

python -m dots_zoo.train.half_weights runs/tiny dots_zoo/weights/dots_cifar10_tiny.safetensors
"""

import sys
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ..runtime.atomic_write import check_output, write_file
from ..runtime.errors import DotsZooError


def halved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert float32 tensors of two axes or more to float16; batch norms and biases stay.

    Raises DotsZooError where a weight is too large for float16.
    """
    converted = {
        name: tensor.half() if tensor.dtype == torch.float32 and tensor.dim() > 1 else tensor
        for name, tensor in weights.items()
    }
    if infinite := [name for name, tensor in converted.items() if not tensor.isfinite().all()]:
        raise DotsZooError(f"{infinite[0]}: expected weights up to 65504, which float16 holds; keep float32")
    return converted


def export_weights(run: Path, target: Path) -> Path:
    """Write a training's weights in float16. Raises DotsZooError where they cannot be read or written."""
    check_output(target)
    source = run / "model.safetensors"
    try:
        weights = load_file(source)
    except (OSError, SafetensorError) as error:
        raise DotsZooError(f"{source}: expected the weights of a training, got {error}") from None
    return write_file(target, save(halved(weights), {"format": "pt"}))


if __name__ == "__main__":
    path = export_weights(Path(sys.argv[1]), Path(sys.argv[2]))
    print(f"written to {path}: {path.stat().st_size:,} bytes")
