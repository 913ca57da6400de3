from dataclasses import replace

import pytest
import torch

from dots_zoo.data.augment import Augmentation, cutout, normalise, random_crop, random_flip, shrunk, shuffled
from dots_zoo.data.datasets import DataOptions
from dots_zoo.data.load import load_data
from dots_zoo.runtime.errors import DotsZooError


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_padding": -1}, "crop_padding: expected 0 pixels or more, got -1"),
        ({"cutout": -1}, "cutout: expected 0 pixels or more, got -1"),
        ({"min_scale": 0.0}, "min_scale: expected a share above 0 and up to 1, got 0.0"),
        ({"min_scale": 1.01}, "min_scale: expected a share above 0 and up to 1, got 1.01"),
        ({"colour_jitter": float("nan")}, "colour_jitter: expected a number from 0 to 1, got nan"),
        ({"colour_jitter": 1.1}, "colour_jitter: expected a number from 0 to 1, got 1.1"),
    ],
)
def test_numbers_out_of_range_are_refused(changes, message):
    with pytest.raises(DotsZooError, match=message):
        Augmentation(**changes)


def test_the_borders_of_the_ranges_are_allowed():
    assert Augmentation(crop_padding=0, cutout=0, min_scale=1, colour_jitter=1).min_scale == 1
    assert Augmentation(min_scale=1e-9, colour_jitter=0).colour_jitter == 0


@pytest.mark.parametrize("habit", [True, False])
def test_the_data_set_says_whether_to_mirror_until_told_otherwise(habit):
    data = replace(load_data(DataOptions()), flip=habit)

    def batch(flip):
        still = Augmentation(crop_padding=0, flip=flip)
        return data.train_batch(torch.arange(20), still, torch.Generator().manual_seed(0))

    assert torch.equal(batch(None), batch(habit)) and not torch.equal(batch(None), batch(not habit))


def test_normalised_training_images_have_zero_mean_and_unit_variance():
    data = load_data(DataOptions())
    images = normalise(data.images, data)
    assert images.mean().abs() < 1e-4 and (images.std() - 1).abs() < 1e-3
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_shuffling_uses_every_image_once_before_any_twice():
    indices = torch.tensor([10, 11, 12, 13, 14])
    order = shuffled(indices, 12, draws())
    assert len(order) == 12
    assert sorted(order[:5].tolist()) == sorted(order[5:10].tolist()) == indices.tolist()
    assert order[:5].tolist() != order[5:10].tolist()


def test_a_random_crop_is_a_window_of_the_padded_image():
    images = torch.arange(1, 2 * 64 * 3 * 4 + 1).reshape(64, 2, 3, 4).float()
    cropped = random_crop(images, 1, draws())
    assert cropped.shape == images.shape
    padded = torch.nn.functional.pad(images, [1] * 4)
    seen = set()
    for number in range(64):
        [place] = [
            (top, left)
            for top in range(3)
            for left in range(3)
            if torch.equal(cropped[number], padded[number, :, top : top + 3, left : left + 4])
        ]
        seen.add(place)
    assert len(seen) == 9


def test_a_flip_mirrors_some_images_left_to_right():
    images = torch.arange(64 * 2 * 3 * 4).reshape(64, 2, 3, 4)
    flipped = random_flip(images, draws())
    mirrored = [torch.equal(new, old.flip(2)) for new, old in zip(flipped, images, strict=True)]
    same = [torch.equal(new, old) for new, old in zip(flipped, images, strict=True)]
    assert all(one != other for one, other in zip(mirrored, same, strict=True)) and 20 < sum(mirrored) < 44


def test_cutout_blanks_one_square_around_a_drawn_pixel():
    blanked = cutout(torch.ones(500, 2, 6, 5), 4, draws()) == 0
    assert torch.equal(blanked[:, 0], blanked[:, 1])
    rows, columns = blanked[:, 0].any(2).sum(1), blanked[:, 0].any(1).sum(1)
    assert torch.equal(blanked[:, 0].sum((1, 2)), rows * columns)
    assert set(rows.tolist()) == {2, 3, 4} == set(columns.tolist())  # clipped at either border by at most two
    assert blanked[:, 0].any(0).all()


@pytest.mark.parametrize(
    "draw", [lambda x, g: random_crop(x, 2, g), random_flip, lambda x, g: cutout(x, 2, g)]
)
def test_augmentation_draws_from_its_generator_alone(draw):
    images = torch.rand(16, 1, 8, 8)
    state = torch.get_rng_state()
    first = draw(images, draws(1))
    assert torch.equal(first, draw(images, draws(1))) and not torch.equal(first, draw(images, draws(2)))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_shrunk_image_is_made_of_means():
    images = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 4], [8, 8, 2, 2], [8, 8, 2, 2]]).view(1, 1, 4, 4)
    flat = torch.full((2, 3, 8, 8), 5.0)
    torch.testing.assert_close(shrunk(flat, 4), torch.full((2, 3, 4, 4), 5.0))
    # Half the side: a triangle two pixels wide on either side, shares 1 3 3 1 of 8, cut off at the border.
    left = torch.tensor([3.0, 3, 1, 0]) / 7
    assert shrunk(images, 2)[0, 0, 0, 0].item() == pytest.approx(float(left @ images[0, 0] @ left))
    assert shrunk(images, 4) is images
