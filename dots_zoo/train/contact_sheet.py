"""Draw a contact sheet: small pictures of images in a grid, each with its caption below."""

import io
import math
from collections.abc import Sequence

from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFont

SIDE, GAP, CAPTION = 160, 12, 22  # pixels of a picture, between two, and of the line below
MOST_COLUMNS = 8
MOST_IMAGES = 2000
SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
PAPER, INK = "white", "#222222"


def thumbnail(image: Image.Image) -> Image.Image:
    """Return an image that fits into a square of the sheet; a small one is enlarged, its pixels sharp."""
    scale = SIDE / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    method = Image.Resampling.NEAREST if scale > 2 else Image.Resampling.BICUBIC
    return image.convert("RGB").resize(size, method)


def contact_sheet(thumbnails: Sequence[Image.Image], captions: Sequence[str], suffix: str) -> bytes:
    """Return the picture of all thumbnails with their captions, in the format of a suffix."""
    columns = min(MOST_COLUMNS, math.ceil(math.sqrt(len(thumbnails))))
    rows = math.ceil(len(thumbnails) / columns)
    across, down = SIDE + GAP, SIDE + CAPTION + GAP
    sheet = Image.new("RGB", (GAP + columns * across, GAP + rows * down), PAPER)
    # matplotlib's font has more letters than Pillow's own
    font = ImageFont.truetype(f"{get_data_path()}/fonts/ttf/DejaVuSans.ttf", 13)
    draw = ImageDraw.Draw(sheet)
    for index, (picture, caption) in enumerate(zip(thumbnails, captions, strict=True)):
        left, top = GAP + index % columns * across, GAP + index // columns * down
        sheet.paste(picture, (left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2))
        text = _shortened(caption, font)
        width = font.getlength(text)
        draw.text((left + (SIDE - width) / 2, top + SIDE + 3), text, INK, font)
    content = io.BytesIO()
    sheet.save(content, SUFFIXES[suffix.lower()])
    return content.getvalue()


def _shortened(caption: str, font: ImageFont.FreeTypeFont) -> str:
    """Shorten the class in a caption, not its probability, until the line fits."""
    name, _, rest = caption.rpartition(" ")
    name, _, percent = name.rpartition(" ")
    text = caption
    while font.getlength(text) > SIDE and name:
        name = name[:-1]
        text = f"{name}… {percent} {rest}"
    return text
