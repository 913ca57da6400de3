import logging
import os
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torchvision.transforms.v2 import functional as F

from dots_zoo.data.augment import Augmentation, cutout
from dots_zoo.data.datasets import DataOptions
from dots_zoo.data.decode import parallel_map
from dots_zoo.data.image_folder import statistics
from dots_zoo.data.load import load_data
from dots_zoo.data.transforms import middle_view
from dots_zoo.runtime.errors import DotsZooError
from helpers.paths import SHARED


def draws(seed=0):
    return torch.Generator().manual_seed(seed)


def picture(number, height=20, width=24):
    values = torch.randint(256, (3, height, width), generator=draws(number)).byte()
    return F.to_pil_image(values)


def save(image, path, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def load(root, **options):
    return load_data(DataOptions(data="image_folder", data_root=str(root), **{"image_size": 16, **options}))


@pytest.fixture
def root(tmp_path):
    """Two classes, five training images of different sizes and one test image each."""
    for label, name in enumerate(("cat", "dog")):
        for number in range(5):
            image = picture(10 * label + number, 18 + 7 * number, 40 - 5 * number)
            save(image, tmp_path / "train" / name / f"{number}.{'jpg' if number % 2 else 'png'}")
        save(picture(50 + label), tmp_path / "val" / name / "deeper" / "0.PNG")
    return tmp_path


def test_classes_are_folders_in_the_order_of_their_names(root):
    data = load(root)
    assert data.class_names == ("cat", "dog") and data.classes == 2
    assert data.labels.tolist() == [0] * 5 + [1] * 5 and data.test_labels.tolist() == [0, 1]
    assert data.labels.dtype == torch.int64
    assert [Path(path).name for path in data.paths[:5]] == ["0.png", "1.jpg", "2.png", "3.jpg", "4.png"]
    assert (data.in_chans, data.size, data.flip, data.name) == (3, 16, True, "image_folder")
    assert load(root, image_size=None).size == 224
    assert load_data(DataOptions(**data.options)).paths == data.paths


def test_batches_hold_the_images_asked_for(root):
    data, chosen = load(root), torch.tensor([7, 0, 7])
    plain = data.plain_batch(chosen)
    assert plain.shape == (3, 3, 16, 16) and plain.dtype == torch.float32
    assert plain.is_contiguous(memory_format=torch.channels_last)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (data.mean, data.std))
    with Image.open(root / "train" / "dog" / "2.png") as image:
        expected = (middle_view(image, 16) / 255 - mean) / std
    assert torch.allclose(plain[0], expected, atol=1e-6) and torch.equal(plain[0], plain[2])
    with Image.open(root / "val" / "dog" / "deeper" / "0.PNG") as image:
        expected = (middle_view(image, 16) / 255 - mean) / std
    assert torch.allclose(data.test_batch(torch.tensor([1]))[0], expected, atol=1e-6)


def test_an_image_depends_on_its_draws_and_not_on_the_threads(root):
    data, chosen = load(root), torch.arange(10).repeat(5)
    one, four = (
        replace(data, threads=threads).train_batch(chosen, Augmentation(cutout=4), draws(3))
        for threads in (1, 4)
    )
    assert torch.equal(one, four)
    assert len({tuple(image.flatten().tolist()) for image in one}) == 50  # each has draws of its own
    assert not torch.equal(one, data.train_batch(chosen, Augmentation(cutout=4), draws(4)))
    state, python = torch.get_rng_state(), __import__("random").getstate()
    data.train_batch(chosen, Augmentation(), draws(3))
    assert torch.equal(torch.get_rng_state(), state) and __import__("random").getstate() == python


def test_cutout_blanks_after_the_images_are_normalised(root):
    data, chosen, generator = load(root), torch.arange(10), draws(3)
    plain = data.train_batch(chosen, Augmentation(), generator)
    assert torch.equal(
        data.train_batch(chosen, Augmentation(cutout=5), draws(3)), cutout(plain, 5, generator)
    )


def test_flips_are_the_folder_s_habit_and_can_be_left_out(root):
    data, chosen = load(root), torch.arange(10)
    habit, on, off = (
        data.train_batch(chosen, Augmentation(flip=flip, colour_jitter=0), draws())
        for flip in (None, True, False)
    )
    mirrored = [torch.equal(a, b.flip(2)) and not torch.equal(a, b) for a, b in zip(on, off, strict=True)]
    assert torch.equal(habit, on) and 0 < sum(mirrored) < 10


def test_labels_and_batches_move(root):
    moved = load(root).to(torch.device("meta"))
    assert moved.labels.device.type == moved.test_labels.device.type == "meta"
    assert moved.train_batch(torch.arange(2), Augmentation(), draws()).device.type == "meta"
    assert moved.plain_batch(torch.arange(2)).device.type == "meta"


def test_test_images_may_be_called_test_and_val_comes_first(root):
    save(picture(90), root / "test" / "cat" / "other.png")
    save(picture(91), root / "test" / "dog" / "other.png")
    assert "val" in Path(load(root).test_paths[0]).parts
    os.rename(root / "val", root / "elsewhere")
    assert [Path(path).parts[-3:] for path in load(root).test_paths] == [
        ("test", "cat", "other.png"), ("test", "dog", "other.png"),
    ]  # fmt: skip


def test_statistics_are_those_of_the_training_images_or_imagenet_s(root):
    data = load(root)
    images = torch.stack([middle_view(Image.open(path).convert("RGB"), 16) for path in data.paths]) / 255
    assert torch.allclose(torch.tensor(data.mean), images.mean((0, 2, 3)), atol=1e-6)
    assert torch.allclose(torch.tensor(data.std), images.std((0, 2, 3), correction=0), atol=1e-6)
    asked = load(root, imagenet_statistics=True)
    assert (asked.mean, asked.std) == (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def test_statistics_of_many_images_come_from_some_all_over(tmp_path):
    """From every other of 2048: 0, 10, 20 and 30."""
    shades = (0, 255, 10, 255, 20, 255, 30, 255)
    paths = [
        str(save(Image.new("RGB", (8, 8), (shade, 7, 0)), tmp_path / f"{number}.png"))
        for number, shade in enumerate(shades)
    ]
    mean, std = statistics(paths * 256, 8, 1)
    assert mean == pytest.approx((15 / 255, 7 / 255, 0))
    assert std == pytest.approx(((125**0.5) / 255, 1 / 255, 1 / 255))  # at least one grey level


def test_a_fraction_of_every_class(root):
    save(picture(9), root / "val" / "cat" / "1.png")
    data, whole = load(root, train_fraction=0.4), load(root)
    assert data.labels.tolist() == [0, 0, 1, 1] and set(data.paths) < set(whole.paths)
    assert data.test_paths == whole.test_paths and data.paths == load(root, train_fraction=0.4).paths
    assert load(root, train_fraction=0.01).labels.tolist() == [0, 1]


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (20, 16), 90),
        Image.new("1", (20, 16), 1),
        Image.new("RGBA", (20, 16), (9, 80, 7, 0)),
        Image.new("LA", (20, 16), (80, 3)),
        Image.new("CMYK", (20, 16), (10, 20, 30, 40)),
        Image.new("RGB", (20, 16), (9, 80, 7)).quantize(4),
    ],
    ids=lambda image: image.mode,
)
def test_images_of_every_kind_become_rgb(image, root):
    path = save(image, root / "train" / "cat" / f"a.{'jpg' if image.mode == 'CMYK' else 'png'}")
    data = load(root)
    found = data.plain_batch(torch.tensor([data.paths.index(str(path))]))[0, :, 8, 8]
    expected = torch.tensor(image.convert("RGB").getpixel((8, 8))) / 255
    assert torch.allclose(found * torch.tensor(data.std) + torch.tensor(data.mean), expected, atol=2 / 255)


def test_a_palette_with_transparency_becomes_rgb_without_a_warning(root):
    image = Image.new("RGB", (20, 16), (200, 100, 50)).quantize(4)
    path = save(image, root / "train" / "cat" / "a.png", transparency=b"\x80\x40\x20")
    data = load(root)
    found = data.plain_batch(torch.tensor([data.paths.index(str(path))]))[0, :, 8, 8]
    values = (found * torch.tensor(data.std) + torch.tensor(data.mean)) * 255
    assert values.round().tolist() == [200, 100, 50]


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 90), (3, 2)])
def test_images_smaller_than_asked_are_enlarged(height, width, root):
    path = save(Image.new("RGB", (width, height), (255, 0, 9)), root / "train" / "cat" / "a.png")
    data = load(root)
    chosen = torch.tensor([data.paths.index(str(path))])
    still = Augmentation(colour_jitter=0)
    for batch in (data.plain_batch(chosen), data.train_batch(chosen, still, draws())):
        assert batch.shape == (1, 3, 16, 16) and torch.equal(batch, batch[..., :1, :1].expand_as(batch))


def cut_off(path):
    path.write_bytes(path.read_bytes()[:-400])


def test_files_that_are_no_images_are_left_out_counted_and_named(root, caplog):
    cat = root / "train" / "cat"
    (cat / "a.jpg").write_bytes(b"")
    (cat / "b.png").write_bytes(b"no image at all")
    save(Image.new("I;16", (9, 9), 300), cat / "c.png")
    (cat / "notes.txt").write_text("no image is expected here")
    save(Image.new("L", (9, 9)), cat / "d.bmp").write_bytes(b"BM")
    with caplog.at_level(logging.WARNING):
        data = load(root)
    assert len(data.paths) == len(data.labels) == 10 and data.labels.tolist() == [0] * 5 + [1] * 5
    [message] = caplog.messages
    assert message.startswith(
        f"image_folder: 4 of 14 images in {root / 'train'} are left out, they cannot be"
    )
    assert "a.jpg (no image), " in message and "b.png (no image), " in message
    assert "c.png (mode I;16, expected 8 bits a channel) and 1 more" in message


def test_an_image_cut_off_in_the_middle_is_an_error_or_left_out_if_asked(root, caplog):
    cut_off(root / "train" / "dog" / "0.png")
    cut_off(root / "val" / "dog" / "deeper" / "0.PNG")
    save(picture(3), root / "val" / "dog" / "1.png")
    data = load(root, imagenet_statistics=True)
    assert len(data.paths) == 10 and not caplog.messages
    expected = (
        "train/dog/0.png: expected an image, but it cannot be decoded .* let check_pixels=true leave out"
    )
    for batch in (data.plain_batch, lambda chosen: data.train_batch(chosen, Augmentation(), draws())):
        with pytest.raises(DotsZooError, match=expected):
            batch(torch.arange(10))
    checked = load(root, check_pixels=True)
    assert checked.labels.tolist() == [0] * 5 + [1] * 4 and len(checked.test_paths) == 2
    assert [message.split(" images")[0] for message in caplog.messages] == [
        "image_folder: 1 of 10", "image_folder: 1 of 3",
    ]  # fmt: skip
    checked.train_batch(torch.arange(9), Augmentation(), draws())


def remove(folder):
    for path in sorted(folder.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    folder.rmdir()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: remove(root / "train"), r"a folder a class in .*, or train and val .*, got val$"),
        (lambda root: remove(root), r"a folder a class in .*, or train and val .*, got no folder$"),
        (lambda root: (remove(root), root.mkdir()), r"a folder a class in .*, got an empty folder$"),
        (
            lambda root: (remove(root / "train"), (root / "train").mkdir()),
            "a folder a class in .*train, got none",
        ),
        (
            lambda root: [path.unlink() for path in (root / "train").rglob("*.*")],
            "images that can be read in every class folder of .*train, got none in cat, dog; fill or remove",
        ),
        (lambda root: (root / "train" / "eel").mkdir(), "only in one of them: eel$"),
        (lambda root: save(picture(0), root / "val" / "eel" / "a.png"), "only in one of them: eel$"),
        (lambda root: remove(root / "val" / "dog"), "only in one of them: dog$"),
        (lambda root: remove(root / "train" / "dog"), "two class folders or more in .*train, got one: cat$"),
        (
            lambda root: [(root / part / "eel").mkdir() for part in ("train", "val")],
            "images that can be read in every class folder of .*train, got none in eel; fill or remove it$",
        ),
        (
            lambda root: (root / "val" / "dog" / "deeper" / "0.PNG").write_bytes(b"no image"),
            "images that can be read in every class folder of .*val, got none in dog; fill or remove it$",
        ),
    ],
)
def test_a_folder_of_another_layout_is_refused(damage, message, root):
    damage(root)
    with pytest.raises(DotsZooError, match=f"^image_folder: expected .*{message}"):
        load(root)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_root": None}, "expected --data-root, the folder of the images, got none"),
        ({"data_root": "here", "download": True}, "expected images of your own, got --download"),
    ],
)
def test_your_own_images_need_a_root_and_no_download(options, message):
    with pytest.raises(DotsZooError, match=f"image_folder: {message}"):
        load_data(DataOptions(data="image_folder", **options))


def test_work_comes_back_in_order_beyond_what_waits_at_a_time():
    assert list(parallel_map(lambda number: -number, range(9000), 4)) == [-number for number in range(9000)]


@pytest.mark.skipif(not (SHARED / "imagenette_mini").is_dir(), reason="no imagenette_mini (DOTS_ZOO_DATA)")
def test_real_photographs(tmp_path, caplog):
    for part in ("train", "val"):
        with zipfile.ZipFile(SHARED / "imagenette_mini" / f"{part}.zip") as archive:
            archive.extractall(tmp_path / part)
    data = load(tmp_path, image_size=64)
    assert data.labels.bincount().tolist() == [60] * 10 and data.test_labels.bincount().tolist() == [25] * 10
    assert data.class_names[0] == "n01440764" and not caplog.messages
    assert all(abs(a - b) < 0.05 for a, b in zip(data.mean, IMAGENET_DEFAULT_MEAN, strict=True))
    plain = data.plain_batch(torch.arange(0, 600, 10))
    assert plain.shape == (60, 3, 64, 64) and plain.mean().abs() < 0.15 and (plain.std() - 1).abs() < 0.1
    varied = [
        replace(data, threads=threads).train_batch(torch.arange(0, 600, 20), Augmentation(), draws())
        for threads in (1, 4)
    ]
    assert torch.equal(*varied)


def test_without_test_images_a_fifth_of_every_class_is_kept_apart(root, caplog):
    remove(root / "val")
    data = load(root)
    assert data.test_labels.tolist() == [0, 1] and data.labels.tolist() == [0] * 4 + [1] * 4
    assert not set(data.paths) & set(data.test_paths)
    assert "2 of its 10 images, a fifth of every class, are kept apart" in " ".join(caplog.text.split())
    plain = load(root / "train")
    names = [[Path(path).name for path in paths] for paths in (data.paths, plain.paths)]
    assert names[0] == names[1] and load(root).test_paths == data.test_paths


def test_a_class_of_one_image_cannot_be_split(root):
    (root / "train" / "eel").mkdir()
    save(picture(0), root / "train" / "eel" / "only.png")
    with pytest.raises(DotsZooError, match="expected two images or more .*, got one in eel"):
        load(root / "train")


@pytest.mark.parametrize("below", ["", "train"])
def test_a_folder_of_class_folders_is_recognised(root, below):
    data = load_data(DataOptions(data_root=str(root / below), image_size=16))
    assert data.name == "image_folder" and data.options["data"] == "image_folder"
    assert load_data(DataOptions()).name == "digits"


def test_a_folder_of_something_else_says_which_data_set_to_name(tmp_path):
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DotsZooError, match="data_root: expected .* a folder a class .*, got notes.txt"):
        load_data(DataOptions(data_root=str(tmp_path)))
    (tmp_path / "cifar-10-batches-py").mkdir()
    with pytest.raises(DotsZooError, match="holds files of cifar10; say --data cifar10"):
        load_data(DataOptions(data_root=str(tmp_path)))
