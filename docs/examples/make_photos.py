"""Write PNG photos in three classes out of what scikit-learn ships: python make_photos.py photos."""

import sys
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits, load_sample_images

SIDE, PHOTOS = 48, 100  # pixels of a photo; photos of a class


def tiles(picture: Image.Image) -> list[Image.Image]:
    """Return the squares of SIDE pixels that a picture is made of, none of them sharing a pixel."""
    width, height = picture.size
    corners = [(x, y) for y in range(0, height - SIDE + 1, SIDE) for x in range(0, width - SIDE + 1, SIDE)]
    return [picture.crop((x, y, x + SIDE, y + SIDE)) for x, y in corners]


def main(folder: Path) -> None:
    """Write PHOTOS images of each class into folder/CLASS."""
    temple, flower = (Image.fromarray(image) for image in load_sample_images().images)
    digits = (Image.fromarray((16 * digit).clip(0, 255).astype("uint8")) for digit in load_digits().images)
    writing = [
        digit.resize((SIDE, SIDE)).convert("RGB") for digit, _ in zip(digits, range(PHOTOS), strict=False)
    ]
    for name, photos in {"flower": tiles(flower), "temple": tiles(temple), "writing": writing}.items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number, photo in enumerate(photos[:PHOTOS]):
            photo.save(folder / name / f"{number:03d}.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
