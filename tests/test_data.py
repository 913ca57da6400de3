import os

import pytest
import torch
from sklearn.datasets import load_digits

from dots_zoo.augment import cutout, normalise, random_crop, random_flip, shuffled
from dots_zoo.datasets import DataOptions, load_data
from dots_zoo.errors import DotsZooError
from dots_zoo.search.data import split_halves


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def test_digits_are_split_once_and_for_all_with_every_fifth_of_a_class_for_the_test():
    data = load_data(DataOptions())
    assert data.images.shape == (1442, 1, 8, 8) and data.test_images.shape == (355, 1, 8, 8)
    pixels, target = load_digits(return_X_y=True)
    where = [index for digit in range(10) for index in [i for i, t in enumerate(target) if t == digit][4::5]]
    expected = torch.tensor(pixels[sorted(where)] * 255 / 16).round().to(torch.uint8).reshape(-1, 1, 8, 8)
    assert torch.equal(data.test_images, expected)
    assert data.test_labels.tolist() == target[sorted(where)].tolist()
    assert (data.labels.bincount() / data.test_labels.bincount()).sub(4).abs().max() < 0.2
    assert data.images.max() == 255 and not data.flip and data.classes == 10


def test_digits_are_resized_if_asked():
    data = load_data(DataOptions(image_size=16))
    small = load_data(DataOptions())
    assert data.images.shape == (1442, 1, 16, 16) and data.images.dtype == torch.uint8
    assert (data.images.float().mean() - small.images.float().mean()).abs() < 1
    assert data.options == {"data": "digits", "data_root": None, "download": False, "image_size": 16}


@pytest.mark.parametrize("changes", [{"data_root": "data"}, {"download": True}])
def test_digits_take_no_folder(changes):
    with pytest.raises(DotsZooError, match="digits: expected neither data_root nor download"):
        load_data(DataOptions(**changes))


def test_an_image_size_too_small_to_reduce_is_refused():
    with pytest.raises(DotsZooError, match="image_size: expected 8 pixels or more, got 4"):
        load_data(DataOptions(image_size=4))


def test_normalised_training_images_have_zero_mean_and_unit_variance():
    data = load_data(DataOptions())
    images = normalise(data.images, data)
    assert images.mean().abs() < 1e-4 and (images.std() - 1).abs() < 1e-3
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_cifar10_needs_a_folder():
    with pytest.raises(
        DotsZooError, match="cifar10: expected data_root, the folder that holds cifar-10-batches-py"
    ):
        load_data(DataOptions(data="cifar10"))


def test_cifar10_that_is_not_there_is_refused_and_not_downloaded(tmp_path):
    with pytest.raises(
        DotsZooError, match="cifar10: expected cifar-10-batches-py .* download=true fetches it"
    ):
        load_data(DataOptions(data="cifar10", data_root=str(tmp_path)))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(
    "DOTS_ZOO_CIFAR10" not in os.environ, reason="DOTS_ZOO_CIFAR10 names no folder with CIFAR-10"
)
def test_cifar10_is_read_in_the_published_order():
    data = load_data(DataOptions(data="cifar10", data_root=os.environ["DOTS_ZOO_CIFAR10"]))
    assert data.images.shape == (50000, 3, 32, 32) and data.test_images.shape == (10000, 3, 32, 32)
    assert data.labels[:4].tolist() == [6, 9, 9, 4] and data.test_labels[:4].tolist() == [3, 8, 8, 0]
    assert data.images[0, :, 0, 0].tolist() == [59, 62, 63] and data.flip
    images = normalise(data.images[:10000], data)
    assert (
        images.mean(dim=(0, 2, 3)).abs().max() < 0.05 and (images.std(dim=(0, 2, 3)) - 1).abs().max() < 0.05
    )


def test_the_halves_share_no_image_and_are_drawn():
    parts = split_halves(11, draws())
    assert len(parts["a"]) == 5 and len(parts["b"]) == 6
    assert (
        sorted(torch.cat([parts["a"], parts["b"]]).tolist())
        == list(range(11))
        == sorted(parts["all"].tolist())
    )
    assert parts["a"].tolist() != split_halves(11, draws(1))["a"].tolist()


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
