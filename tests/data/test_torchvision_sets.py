"""Each set from files in its own format; where torchvision checks MD5 sums, it checks these files'."""

import gzip
import hashlib
import os
import pickle
import sys
from urllib.error import URLError

import pytest
import torch
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CIFAR100, SVHN

from dots_zoo.data.augment import normalise
from dots_zoo.data.datasets import DataOptions
from dots_zoo.data.load import load_data
from dots_zoo.runtime.errors import DotsZooError

CLASSES = {"cifar10": 10, "cifar100": 100, "svhn": 10, "fashion_mnist": 10}


def pixels(count, *shape):
    return torch.randint(256, (count, *shape), generator=torch.Generator().manual_seed(count)).byte()


def write(path, content):
    """Write the file and return its MD5 sum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return hashlib.md5(content).hexdigest()


def load(name, root, **options):
    return load_data(DataOptions(data=name, data_root=str(root), **options))


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
    assert data.class_names == tuple("0123456789")


def test_digits_are_resized_if_asked():
    data = load_data(DataOptions(image_size=16))
    small = load_data(DataOptions())
    assert data.images.shape == (1442, 1, 16, 16) and data.images.dtype == torch.uint8
    assert data.size == 16 and len(data.test_images) == len(small.test_images)
    difference = data.images.float().mean((1, 2, 3)) - small.images.float().mean((1, 2, 3))
    assert difference.abs().max() < 3  # each image is its own
    assert data.options == {
        "data": "digits", "data_root": None, "download": False, "image_size": 16, "train_fraction": 1.0,
        "imagenet_statistics": False, "check_pixels": False, "threads": None,
    }  # fmt: skip


@pytest.mark.parametrize("changes", [{"data_root": "data"}, {"download": True}])
def test_digits_take_no_folder(changes):
    with pytest.raises(DotsZooError, match="digits: expected neither --data-root nor --download"):
        load_data(DataOptions("digits", **changes))


def test_digits_name_the_extra_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(
        DotsZooError, match=r"digits: expected scikit-learn, .* 'dots-zoo\[search\]' or 'dots-zoo\[train\]'"
    ):
        load_data(DataOptions())


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
        ("svhn", "train_32x32.mat and test_32x32.mat"),
        ("fashion_mnist", "FashionMNIST/raw"),
    ],
)
def test_what_is_not_there_is_named_and_downloaded_only_if_asked(name, holds, monkeypatch, tmp_path):
    asked = []

    def no_network(request, *args, **kwargs):
        asked.append(request)
        raise URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    with pytest.raises(
        DotsZooError, match=f"{name}: expected --data-root, the folder that holds {holds}, got"
    ):
        load_data(DataOptions(data=name))
    with pytest.raises(DotsZooError, match=f"{name}: expected {holds} .* --download fetches it"):
        load(name, tmp_path)
    assert not list(tmp_path.iterdir()) and not asked
    with pytest.raises(DotsZooError, match=f"{name}: expected {holds} .*no network"):
        load(name, tmp_path, download=True)
    assert asked


def write_cifar(kind, root, monkeypatch):
    """Three training and two test images in every file, and their sums where torchvision looks for them."""
    key, classes = ("labels", 10) if kind is CIFAR10 else ("fine_labels", 100)
    folder, names = root / kind.base_folder, [f"class {number}" for number in range(classes)]
    for which, count in (("train_list", 3), ("test_list", 2)):
        files = []
        for name, _ in getattr(kind, which):
            data = pixels(count, 3072).numpy()
            batch = {"data": data, key: [classes - 1, 4, 0][:count], "coarse_labels": [1] * count}
            files.append([name, write(folder / name, pickle.dumps(batch))])
        monkeypatch.setattr(kind, which, files)
    found = write(folder / kind.meta["filename"], pickle.dumps({kind.meta["key"]: names}))
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": found})


@pytest.mark.parametrize(("name", "kind", "files"), [("cifar10", CIFAR10, 5), ("cifar100", CIFAR100, 1)])
def test_cifar_is_read_from_its_files(name, kind, files, monkeypatch, tmp_path):
    write_cifar(kind, tmp_path, monkeypatch)
    data = load(name, tmp_path)
    assert torch.equal(data.images, pixels(3, 3072).reshape(3, 3, 32, 32).repeat(files, 1, 1, 1))
    assert torch.equal(data.test_images, pixels(2, 3072).reshape(2, 3, 32, 32))
    assert data.labels.tolist() == [CLASSES[name] - 1, 4, 0] * files and data.labels.dtype == torch.int64
    assert data.test_labels.tolist() == [CLASSES[name] - 1, 4]
    assert data.flip and data.classes == len(data.class_names) == CLASSES[name]
    assert data.class_names[4] == "class 4" and data.name == name
    batch = data.test_batch(torch.tensor([1]))[0, :, 2, 3]
    mean, std = {
        "cifar10": ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
        "cifar100": ([0.5071, 0.4865, 0.4409], [0.2673, 0.2564, 0.2762]),
    }[name]
    raw = data.test_images[1, :, 2, 3] / 255
    assert torch.allclose(batch, (raw - torch.tensor(mean)) / torch.tensor(std), atol=1e-6)


def test_a_file_with_another_checksum_is_refused_before_it_is_unpickled(monkeypatch, tmp_path):
    write_cifar(CIFAR100, tmp_path, monkeypatch)
    (tmp_path / "cifar-100-python" / "train").write_bytes(b"cbuiltins\nexit\n.")
    with pytest.raises(DotsZooError, match="cifar100: expected cifar-100-python as published .* corrupted"):
        load("cifar100", tmp_path)


def write_svhn(root, monkeypatch):
    from scipy.io import savemat

    files = {}
    for part, count in (("train", 3), ("test", 2)):
        path = root / f"{part}_32x32.mat"
        stored = pixels(count, 3, 32, 32).permute(2, 3, 1, 0).numpy()  # (H, W, C, N)
        savemat(path, {"X": stored, "y": [[10], [1], [9]][:count]})
        files[part] = ["", path.name, hashlib.md5(path.read_bytes()).hexdigest()]
    monkeypatch.setattr(SVHN, "split_list", files)


def test_svhn_is_read_from_its_files_and_a_mirrored_digit_is_no_digit(monkeypatch, tmp_path):
    write_svhn(tmp_path, monkeypatch)
    data = load("svhn", tmp_path)
    assert torch.equal(data.images, pixels(3, 3, 32, 32))
    assert torch.equal(data.test_images, pixels(2, 3, 32, 32))
    assert data.labels.tolist() == [0, 1, 9] and data.test_labels.tolist() == [0, 1]
    assert not data.flip and data.classes == 10 and data.class_names[9] == "9"
    assert data.mean == (0.4377, 0.4438, 0.4728) and data.std == (0.1980, 0.2010, 0.1970)


def test_svhn_names_the_extra_that_is_missing(monkeypatch, tmp_path):
    write_svhn(tmp_path, monkeypatch)
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    with pytest.raises(
        DotsZooError, match=r"svhn: expected scipy, .* 'dots-zoo\[search\]' or 'dots-zoo\[train\]'"
    ):
        load("svhn", tmp_path)


def idx(tensor):
    """A tensor of bytes in the format of MNIST."""
    sizes = b"".join(size.to_bytes(4, "big") for size in tensor.shape)
    return bytes([0, 0, 8, tensor.ndim]) + sizes + tensor.numpy().tobytes()


def write_fashion_mnist(root, labels=3):
    folder = root / "FashionMNIST" / "raw"
    for part, count, named in (("train", 3, labels), ("t10k", 2, 2)):
        write(folder / f"{part}-images-idx3-ubyte", idx(pixels(count, 28, 28)))
        write(folder / f"{part}-labels-idx1-ubyte", idx(torch.tensor([9, 0, 1])[:named].byte()))
    return folder


def test_fashion_mnist_is_read_from_its_files(tmp_path):
    write_fashion_mnist(tmp_path)
    data = load("fashion_mnist", tmp_path, image_size=32)
    plain = load("fashion_mnist", tmp_path)
    assert torch.equal(plain.images, pixels(3, 1, 28, 28)) and plain.labels.tolist() == [9, 0, 1]
    assert torch.equal(plain.test_images, pixels(2, 1, 28, 28)) and plain.test_labels.tolist() == [9, 0]
    assert plain.flip and plain.in_chans == 1 and plain.class_names[9] == "Ankle boot"
    assert plain.mean == (0.2860,) and plain.std == (0.3530,)
    assert data.images.shape == (3, 1, 32, 32) and data.test_images.shape == (2, 1, 32, 32)


def test_fashion_mnist_of_another_format_is_refused(tmp_path):
    folder = write_fashion_mnist(tmp_path, labels=1)
    with pytest.raises(DotsZooError, match="fashion_mnist: expected .* 3 images have 1 labels"):
        load("fashion_mnist", tmp_path)
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(gzip.compress(path.read_bytes()))
    with pytest.raises(DotsZooError, match="fashion_mnist: expected .* its files cannot be read"):
        load("fashion_mnist", tmp_path)
    path.write_bytes(idx(pixels(3, 28, 28))[:-100])
    with pytest.raises(DotsZooError, match="fashion_mnist: expected FashionMNIST/raw as published"):
        load("fashion_mnist", tmp_path)


def test_resizing_keeps_the_order_beyond_a_thousand_images(tmp_path):
    folder = tmp_path / "FashionMNIST" / "raw"
    for part in ("train", "t10k"):
        grey = (torch.arange(1003) % 251).byte()
        write(folder / f"{part}-images-idx3-ubyte", idx(grey[:, None, None].repeat(1, 4, 4)))
        write(folder / f"{part}-labels-idx1-ubyte", idx(torch.zeros(1003).byte()))
    data = load("fashion_mnist", tmp_path, image_size=8)
    assert data.images[:, 0, 3, 5].tolist() == [number % 251 for number in range(1003)]


@pytest.mark.skipif(
    "DOTS_ZOO_CIFAR10" not in os.environ, reason="DOTS_ZOO_CIFAR10 names no folder with CIFAR-10"
)
def test_cifar10_is_read_in_the_published_order():
    data = load("cifar10", os.environ["DOTS_ZOO_CIFAR10"])
    assert data.images.shape == (50000, 3, 32, 32) and data.test_images.shape == (10000, 3, 32, 32)
    assert data.labels[:4].tolist() == [6, 9, 9, 4] and data.test_labels[:4].tolist() == [3, 8, 8, 0]
    assert data.images[0, :, 0, 0].tolist() == [59, 62, 63] and data.flip
    assert data.class_names[3] == "cat"
    images = normalise(data.images[:10000], data)
    assert (
        images.mean(dim=(0, 2, 3)).abs().max() < 0.05 and (images.std(dim=(0, 2, 3)) - 1).abs().max() < 0.05
    )
