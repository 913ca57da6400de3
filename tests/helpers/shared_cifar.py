"""CIFAR-10 as it lies beside the repository: strips of WebP instead of the published pickles."""

import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from dots_zoo.data.datasets import ImageData
from helpers.paths import SHARED

FOLDER = SHARED / "cifar10"
needed = pytest.mark.skipif(not FOLDER.is_dir(), reason="no cifar10 (DOTS_ZOO_DATA)")


def test_images(count: int = 10_000) -> ImageData:
    """The first test images and their labels; as training images the same ones."""
    strips = []
    with zipfile.ZipFile(FOLDER / "test.zip") as archive:
        for name in sorted(archive.namelist())[: -(-count // 500)]:
            with archive.open(name) as file:
                strips.append(np.asarray(Image.open(file).convert("RGB")).reshape(-1, 32, 32, 3))
    images = torch.from_numpy(np.concatenate(strips)[:count]).permute(0, 3, 1, 2).contiguous()
    labels = torch.from_numpy(np.load(FOLDER / "meta.npz")["labels_test"][:count].astype(np.int64))
    mean, std = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
    return ImageData("cifar10", images, labels, images, labels, 10, mean, std, True, {})
