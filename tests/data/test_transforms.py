import random

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms.v2 import functional as F

from dots_zoo.data.augment import Augmentation
from dots_zoo.data.transforms import colour_jitter, middle_view, random_view, random_window

STILL = Augmentation(min_scale=1, colour_jitter=0)


def picture(height, width, seed=0):
    values = torch.randint(256, (3, height, width), generator=torch.Generator().manual_seed(seed)).byte()
    return F.to_pil_image(values)


def draws(seed=0):
    return random.Random(seed)


@given(st.integers(1, 700), st.integers(1, 700), st.floats(0.001, 1), st.integers(0, 2**63))
def test_a_window_lies_in_the_image(height, width, min_scale, seed):
    top, left, h, w = random_window(height, width, min_scale, draws(seed))
    assert 0 <= top <= top + h <= height and 0 <= left <= left + w <= width and h > 0 and w > 0


def test_windows_have_the_areas_and_the_sides_that_are_asked_for():
    found = [random_window(500, 500, 0.08, draws(seed)) for seed in range(3000)]
    scales = [h * w / 250000 for _, _, h, w in found]
    ratios = [w / h for _, _, h, w in found]
    assert 0.078 < min(scales) < 0.09 and 0.97 < max(scales) <= 1
    fitting = [scale for scale in scales if scale < 0.75]  # they fit at every ratio, so they are uniform
    assert 0.4 < sum(fitting) / len(fitting) < 0.43
    assert 0.745 < min(ratios) < 0.76 and 1.32 < max(ratios) < 1.345
    assert 0.45 < sum(ratio > 1 for ratio in ratios) / 3000 < 0.55
    tops, lefts = [[window[side] for window in found if window[2] < 200] for side in (0, 1)]
    assert max(tops) > 300 and max(lefts) > 300 and min(tops) < 10 and min(lefts) < 10
    assert len(set(zip(tops, lefts, strict=True))) > 0.9 * len(tops)


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (10, 1000, (0, 493, 10, 13)),  # 4:3 of the height
        (1000, 10, (493, 0, 13, 10)),
        (1, 1, (0, 0, 1, 1)),
    ],
)
def test_where_no_part_fits_it_is_the_middle(height, width, expected):
    assert random_window(height, width, 1, draws()) == expected


def test_a_view_is_the_part_resized():
    image = picture(40, 60)
    top, left, height, width = random_window(40, 60, 0.3, draws(4))
    expected = F.resized_crop(image, top, left, height, width, [16, 16])
    found = random_view(image, draws(4), 16, Augmentation(min_scale=0.3, colour_jitter=0), False)
    assert found.shape == (3, 16, 16) and found.dtype == torch.uint8
    assert torch.equal(found, F.pil_to_tensor(expected))


def test_half_of_the_views_are_mirrored_if_asked():
    image = picture(12, 12)
    whole = F.pil_to_tensor(image)
    found = [random_view(image, draws(seed), 12, Augmentation(min_scale=1, colour_jitter=0), True)
             for seed in range(200)]  # fmt: skip
    squares = [seed for seed in range(200) if random_window(12, 12, 1, draws(seed)) == (0, 0, 12, 12)]
    mirrored = [seed for seed in squares if torch.equal(found[seed], whole.flip(2))]
    same = [seed for seed in squares if torch.equal(found[seed], whole)]
    assert sorted(mirrored + same) == squares and 0.35 < len(mirrored) / len(squares) < 0.65
    assert not any(
        torch.equal(random_view(image, draws(seed), 12, STILL, False), whole.flip(2)) for seed in squares
    )


def test_colours_shift_within_their_bounds_and_not_without():
    grey = Image.new("RGB", (4, 4), (100, 100, 100))  # contrast, saturation and hue leave it as it is
    values = {colour_jitter(grey, 0.4, draws(seed)).getpixel((0, 0)) for seed in range(400)}
    assert all(len(set(value)) == 1 for value in values)
    assert 59 <= min(values)[0] < 65 and 135 < max(values)[0] <= 140
    image = picture(8, 8)
    still = random_view(image, draws(1), 8, STILL, False)
    assert not torch.equal(random_view(image, draws(1), 8, Augmentation(min_scale=1), False), still)


def test_the_hue_turns_by_half_of_the_strength_at_most():
    red = Image.new("RGB", (1, 1), (255, 0, 0))
    hues = [colour_jitter(red, 0.4, draws(seed)).convert("HSV").getpixel((0, 0))[0] for seed in range(400)]
    turned = [min(hue, 256 - hue) for hue in hues]
    assert 45 < max(turned) <= 0.2 * 256 + 1
    assert any(0 < hue < 60 for hue in hues) and any(hue > 190 for hue in hues)


def test_four_properties_change_in_every_order_each_by_its_own_amount(monkeypatch):
    calls = []
    for name in ("brightness", "contrast", "saturation", "hue"):

        def change(image, amount, name=name):
            calls[-1].append((name, amount))
            return image + name

        monkeypatch.setattr(f"dots_zoo.data.transforms.F.adjust_{name}", change)
    for seed in range(500):
        calls.append([])
        assert colour_jitter("", 0.3, draws(seed)) == "".join(name for name, _ in calls[-1])
    assert len({tuple(name for name, _ in made) for made in calls}) == 24
    amounts = [dict(made) for made in calls]
    for name, low, high in (
        ("brightness", 0.7, 1.3), ("contrast", 0.7, 1.3), ("saturation", 0.7, 1.3), ("hue", -0.15, 0.15),
    ):  # fmt: skip
        found = [made[name] for made in amounts]
        assert low <= min(found) < low + 0.02 and high - 0.02 < max(found) <= high
    assert all(len(set(made.values())) == 4 for made in amounts)


@pytest.mark.parametrize(("height", "width"), [(256, 300), (500, 333), (20, 30), (30, 20), (224, 224)])
def test_the_middle_is_that_of_the_resized_image(height, width):
    image = picture(height, width)
    found = middle_view(image, 28)
    resized = F.pil_to_tensor(F.resize(image, [32]))  # 28 * 256 / 224, the shorter side
    assert min(resized.shape[1:]) == 32
    top, left = (round((side - 28) / 2) for side in resized.shape[1:])
    assert torch.equal(found, resized[:, top : top + 28, left : left + 28])
