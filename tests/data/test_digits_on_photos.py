"""Digits over photographs: the same images every time, and harder than the digits alone."""

from dataclasses import replace

import pytest
import torch
from sklearn.neighbors import KNeighborsClassifier

from dots_zoo.data.datasets import DataOptions, ImageData
from dots_zoo.data.digits_on_photos import TEST_COPIES
from dots_zoo.data.load import load_data
from dots_zoo.runtime.errors import DotsZooError

OPTIONS = DataOptions(data="digits_on_photos")


def load(options: DataOptions = OPTIONS) -> ImageData:
    data = load_data(options)
    assert isinstance(data, ImageData)
    return data


def neighbours(data: ImageData) -> float:
    train, test = (images.flatten(1).numpy() for images in (data.images, data.test_images))
    return float(KNeighborsClassifier(3).fit(train, data.labels).score(test, data.test_labels))


def test_the_images_are_the_same_every_time_and_have_the_labels_of_the_digits() -> None:
    data, digits = load(), load(DataOptions())
    assert data.fingerprint == load().fingerprint and data.options["data"] == "digits_on_photos"
    assert torch.equal(data.labels, digits.labels) and data.images.shape == digits.images.shape
    assert torch.equal(data.test_labels, digits.test_labels.repeat(TEST_COPIES))
    copies = data.test_images.view(TEST_COPIES, len(digits.test_labels), -1)
    assert not any(torch.equal(copies[0], other) for other in copies[1:])
    assert data.mean[0] == pytest.approx((data.images.float() / 255).mean().item())


def test_nearest_neighbours_lose_half_of_what_they_know() -> None:
    assert neighbours(load(DataOptions())) > 0.95 and 0.3 < neighbours(load()) < 0.65


def test_other_sizes_are_rendered_and_options_of_other_sets_refused() -> None:
    assert load(replace(OPTIONS, image_size=16)).images.shape == (1442, 1, 16, 16)
    with pytest.raises(DotsZooError, match="expected neither --data-root nor --download"):
        load(replace(OPTIONS, data_root="photos"))
