"""The options of an export: task, input, precision, and how images go in and answers come out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from dots_zoo.runtime.errors import DotsZooError

from .precision import TOLERANCES, Precision, Target
from .trace import AXES, Exporter

ImageType = Literal["float32", "uint8"]
IMAGE_TYPES: Mapping[ImageType, str] = {
    "float32": "float32 RGB, normalised: (pixel / 255 - mean) / std",
    "uint8": "uint8 RGB, 0 to 255; normalised inside",
}


@dataclass(frozen=True)
class IOSpec:
    """Input and output of a detector's or a segmenter's file.

    image: the type in which images go in, a key of IMAGE_TYPES. logits: a segmenter returns the score of
    every class instead of labels.
    """

    image: ImageType = "float32"
    logits: bool = False

    def __post_init__(self) -> None:
        if self.image not in IMAGE_TYPES:
            raise DotsZooError(f"unknown image type {self.image!r}: expected {' or '.join(IMAGE_TYPES)}")


@dataclass(frozen=True)
class Lowering:
    """The precision of a graph: 'fp32', 'fp16', or 'int8' for a target ('cpu', 'cuda', 'tensorrt').

    half_io: input and output are float16 too. calibration: folder of images, for int8.
    """

    precision: Precision = "fp32"
    target: Target = "cpu"
    half_io: bool = False
    calibration: Path | None = None

    def __post_init__(self) -> None:
        if self.precision not in TOLERANCES:
            raise DotsZooError(f"unknown precision {self.precision!r}: expected {', '.join(TOLERANCES)}")
        if (self.precision == "int8") != (self.calibration is not None):
            raise DotsZooError(
                "int8 needs --images FOLDER with images of the kind to expect"
                if self.precision == "int8"
                else f"--images is for --precision int8, got {self.precision}"
            )
        if self.half_io and self.precision != "fp16":
            raise DotsZooError(f"float16 inputs and outputs are for --precision fp16, got {self.precision}")
        if self.target != "cpu" and self.precision != "int8":
            raise DotsZooError(
                f"a file for {self.target} differs with --precision int8 only, got {self.precision}"
            )


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """The options of one export.

    task: a key of tasks.TASKS. input_size: (C, H, W), None for the model's own. dynamic: the axes of the
    input that are left open; the batch is 1 where it is not among them. io: for detectors and segmenters.
    fuse: rewrite a network of dots_zoo into fewer operations first, which int8 does in any case. seed: for
    the test images.
    """

    task: str = "classify"
    input_size: tuple[int, int, int] | None = None
    dynamic: Sequence[str] = ("batch",)
    lowering: Lowering = Lowering()
    io: IOSpec = IOSpec()
    fuse: bool = False
    opset: int = 18
    exporter: Exporter = "dynamo"
    seed: int = 0

    def __post_init__(self) -> None:
        if unknown := set(self.dynamic) - AXES.keys():
            raise DotsZooError(f"unknown dynamic axis {min(unknown)!r}: expected some of {', '.join(AXES)}")

    @property
    def precision(self) -> Precision:
        """The precision of the graph."""
        return self.lowering.precision

    def open_sizes(self, size: tuple[int, int, int]) -> tuple[int | None, int, int | None, int | None]:
        """Return (batch, C, H, W) of the graph's input, None for the axes that are left open."""
        channels, height, width = size
        batch, high, wide = (
            None if axis in self.dynamic else fixed
            for axis, fixed in (("batch", 1), ("height", height), ("width", width))
        )
        return batch, channels, high, wide
