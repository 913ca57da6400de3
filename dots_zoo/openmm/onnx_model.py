"""Evaluate an exported detector or segmenter in the toolboxes' test loop, in the place of the network.

A file of `dots-zoo export --task detect` or `segment`, run by ONNX Runtime on the images that the config's
test pipeline makes, so that the metric is taken by the same code as the network's own.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.structures import InstanceData, PixelData
from torch import Tensor, nn

from ..runtime.errors import DotsZooError

TASKS = {"detect": "det", "segment": "seg"}


class OnnxModel(nn.Module):
    """A file in the test loop: batches as the data loader gives them -> samples with predictions."""

    def __init__(self, path: Path, task: str) -> None:
        """Open a file of a task, 'det' or 'seg'. Raises DotsZooError for any other file."""
        super().__init__()
        import onnxruntime as ort

        try:
            self.session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's have no common base
            raise DotsZooError(f"{path}: not an ONNX file that can be run: {error!s:.200}") from error
        self.facts: Mapping[str, str] = self.session.get_modelmeta().custom_metadata_map
        self.where, self.task = str(path), TASKS.get(self.facts.get("task", ""))
        outputs = [output.name for output in self.session.get_outputs()]
        if self.task != task:
            wanted = "detect" if task == "det" else "segment"
            raise DotsZooError(
                f"{path}: expected a file of dots-zoo export --task {wanted}, got one of task "
                f"{self.facts.get('task')!r} with {', '.join(outputs)}"
            )

    def test_step(self, data: Mapping[str, Any]) -> list[Any]:
        """Predict the uint8 images of the pipeline one by one, since their sizes differ."""
        images = zip(data["inputs"], data["data_samples"], strict=True)
        return [self._detected(*pair) if self.task == "det" else self._labelled(*pair) for pair in images]

    def _run(self, image: Tensor) -> list[Tensor]:
        """Return the file's outputs of one image (3, H, W) uint8."""
        [graph_input] = self.session.get_inputs()
        fed = self._padded(image.flip(0)[None], graph_input.shape)  # mmcv reads BGR, the file takes RGB
        if graph_input.type == "tensor(float)":
            mean, std = (torch.tensor(json.loads(self.facts[key]))[:, None, None] for key in ("mean", "std"))
            fed = (fed / 255 - mean) / std
        return [torch.from_numpy(y[0]) for y in self.session.run(None, {graph_input.name: fed.numpy()})]

    def _padded(self, image: Tensor, shape: list[Any]) -> Tensor:
        """Pad (1, 3, H, W) with the mean at the bottom and at the right where the file's size is fixed."""
        height, width = (
            side if isinstance(side, int) else image_side
            for side, image_side in zip(shape[2:], image.shape[2:], strict=True)
        )
        if height < image.shape[2] or width < image.shape[3]:
            raise DotsZooError(
                f"{self.where}: expected images up to {height}x{width}, got one of {image.shape[2]}x"
                f"{image.shape[3]} from the config's test pipeline; export with --dynamic batch height width"
            )
        mean = torch.tensor(json.loads(self.facts["mean"])).mul(255).round().to(torch.uint8)
        padded = mean[None, :, None, None].repeat(1, 1, height, width)
        padded[:, :, : image.shape[2], : image.shape[3]] = image
        return padded

    def _detected(self, image: Tensor, sample: Any) -> Any:
        """Return the sample with boxes in pixels of the original image."""
        boxes, scores, labels = self._run(image)
        kept = labels >= 0
        scale = torch.tensor([*sample.scale_factor, *sample.scale_factor])  # width, height
        sample.pred_instances = InstanceData(
            bboxes=boxes[kept] / scale, scores=scores[kept], labels=labels[kept]
        )
        return sample

    def _labelled(self, image: Tensor, sample: Any) -> Any:
        """Return the sample with the label of every pixel; scores are scaled first, as in MMSegmentation."""
        original = tuple(sample.ori_shape)
        out = self._run(image)[0][..., : image.shape[1], : image.shape[2]]
        if out.dim() == 3:
            corners = json.loads(self.facts["align_corners"])
            out = F.interpolate(out[None], original, mode="bilinear", align_corners=corners)[0].argmax(0)
        elif out.shape != original:
            raise DotsZooError(
                f"{self.where}: expected images at their own size, {original[0]}x{original[1]}, got "
                f"{out.shape[0]}x{out.shape[1]} from the config's test pipeline, and labels cannot be scaled "
                "as scores are: export with --logits"
            )
        sample.pred_sem_seg = PixelData(data=out[None])
        return sample
