import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dots_zoo.data.augment import Augmentation, cutout, normalise, random_crop, random_flip
from dots_zoo.data.datasets import DataOptions
from dots_zoo.data.load import load_data
from dots_zoo.data.split import fraction_of_every_class, per_class
from dots_zoo.runtime.errors import DotsZooError
from helpers.toy_search import toy_data

PLAIN = Augmentation(crop_padding=0)


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 7}, "image_size: expected 8 pixels or more, got 7"),
        ({"train_fraction": 0.0}, r"train_fraction: expected a share above 0 and up to 1, got 0\.0"),
        ({"train_fraction": 1.5}, r"train_fraction: expected a share above 0 and up to 1, got 1\.5"),
        ({"train_fraction": float("nan")}, "train_fraction: expected a share above 0 and up to 1, got nan"),
        ({"threads": 2}, "threads: expected only with image_folder, got it with digits"),
        ({"check_pixels": True}, "check_pixels: expected only with image_folder, got it with digits"),
        ({"imagenet_statistics": True, "data": "svhn"}, "imagenet_statistics: expected only .* with svhn"),
        ({"threads": 0, "data": "image_folder"}, "threads: expected 1 or more, got 0"),
    ],
)
def test_options_that_cannot_be_used_are_refused(options, message):
    with pytest.raises(DotsZooError, match=message):
        load_data(DataOptions(**options))


@pytest.mark.processes
def test_reading_the_modules_needs_no_extra():
    hide = "for name in ('sklearn', 'sklearn.datasets', 'scipy', 'scipy.io'): sys.modules[name] = None"
    code = f"import sys\n{hide}\nimport dots_zoo.data.load, dots_zoo.data.image_folder"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_batch_holds_the_images_asked_for_normalised_and_channels_last():
    data = toy_data(16)
    chosen = torch.tensor([3, 3, 11])
    expected = (data.images[chosen].float() / 255 - 0.45) / 0.25
    for batch in (data.plain_batch(chosen), data.train_batch(chosen, PLAIN, draws())):
        assert torch.equal(batch, expected) and batch.is_contiguous(memory_format=torch.channels_last)
    test = load_data(DataOptions())
    assert torch.equal(test.test_batch(torch.tensor([2])), normalise(test.test_images[2:3], test))
    assert not torch.equal(test.test_batch(torch.tensor([2])), test.plain_batch(torch.tensor([2])))


def test_a_training_batch_is_cropped_mirrored_and_blanked_in_that_order_from_its_draws():
    data, chosen = toy_data(64), torch.arange(64)
    generator = draws(5)
    images = random_flip(random_crop(data.images, 2, generator), generator)
    expected = cutout(normalise(images, data), 3, generator)
    varied = Augmentation(crop_padding=2, flip=True, cutout=3)
    assert torch.equal(data.train_batch(chosen, varied, draws(5)), expected)
    assert not torch.equal(data.train_batch(chosen, varied, draws(6)), expected)


def test_data_tell_their_shape_and_move():
    data = toy_data(8)
    assert (data.in_chans, data.size, data.classes, data.class_names) == (1, 8, 4, ())
    moved = data.to(torch.device("meta"))
    assert {moved.images.device.type, moved.labels.device.type} == {"meta"}
    assert {moved.test_images.device.type, moved.test_labels.device.type} == {"meta"}
    assert moved.train_batch(torch.arange(3), PLAIN, draws()).device.type == "meta"


def test_a_fraction_of_the_training_images_is_the_same_every_time_and_keeps_the_test():
    whole, part = load_data(DataOptions()), load_data(DataOptions(train_fraction=0.1))
    counts = whole.labels.bincount()
    assert part.labels.bincount().tolist() == [round(0.1 * count) for count in counts.tolist()]
    kept = fraction_of_every_class(whole.labels, 0.1)
    assert torch.equal(part.images, whole.images[kept]) and torch.equal(part.labels, whole.labels[kept])
    assert kept.tolist() == sorted(set(kept.tolist())) and kept.tolist() != list(range(len(kept)))
    assert torch.equal(part.test_images, whole.test_images) and part.mean == whole.mean
    assert part.options["train_fraction"] == 0.1


LABELS = st.lists(st.integers(0, 4), min_size=1, max_size=60).map(torch.tensor)


@given(LABELS, st.floats(0.001, 1))
def test_a_fraction_has_its_share_of_every_class_and_one_at_least(labels, fraction):
    kept = fraction_of_every_class(labels, fraction)
    assert len(set(kept.tolist())) == len(kept)
    for label in labels.unique():
        count, found = (labels == label).sum().item(), (labels[kept] == label).sum().item()
        assert found == max(1, round(fraction * count))


def test_imagenet_s_shares_of_every_class():
    labels = torch.arange(4000) % 4
    weights, logits = per_class(labels, (0.1, 0.025), draws())
    assert labels[weights].bincount().tolist() == [100] * 4
    assert labels[logits].bincount().tolist() == [25] * 4
    assert not set(weights.tolist()) & set(logits.tolist())
    assert weights.tolist() == sorted(weights.tolist()) and logits.tolist() == sorted(logits.tolist())
    assert weights.tolist() != per_class(labels, (0.1, 0.025), draws(1))[0].tolist()


@given(LABELS, st.integers(1, 99), st.integers(1, 99))
def test_two_shares_are_disjoint_and_right_but_for_rounding(labels, first, second):
    labels = torch.cat([labels, labels])
    total = max(100, first + second)
    shares = first / total, second / total
    if sum(shares) > 1:
        return
    parts = per_class(labels, shares, draws())
    assert not set(parts[0].tolist()) & set(parts[1].tolist())
    for label in labels.unique():
        count = (labels == label).sum().item()
        for part, share in zip(parts, shares, strict=True):
            found = (labels[part] == label).sum().item()
            assert found >= 1 and abs(found - share * count) <= 1.5  # the other share rounds as well


@pytest.mark.parametrize("count", [5, 7])
def test_halves_of_an_odd_class_use_every_image(count):
    one, other = per_class(torch.zeros(count, dtype=torch.int64), (0.5, 0.5), draws())
    assert sorted([*one.tolist(), *other.tolist()]) == list(range(count))
    assert abs(len(one) - len(other)) == 1


@pytest.mark.parametrize("shares", [(0.0, 0.5), (0.5, 0.0), (0.6, 0.5), (float("nan"), 0.5)])
def test_shares_that_are_not_possible_are_refused(shares):
    with pytest.raises(DotsZooError, match="fractions: expected two shares above 0 with a sum up to 1, got"):
        per_class(torch.arange(9) % 3, shares, draws())


def test_a_class_of_one_image_cannot_be_in_two_parts():
    with pytest.raises(DotsZooError, match="two images of every class or more, got a class with one"):
        per_class(torch.tensor([0, 0, 1]), (0.5, 0.5), draws())
