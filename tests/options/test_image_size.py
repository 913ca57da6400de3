"""The size of an image, as three commands read it."""

import pytest

from dots_zoo.options.image_size import image_size
from dots_zoo.runtime.errors import DotsZooError


def test_an_image_size_is_height_times_width() -> None:
    assert image_size("224x320") == (224, 320) and image_size("1x99999") == (1, 99999)
    for text in ("224", "224x", "0x224", "224x-3", "224X320", " 224x320", "100000x1", ""):
        with pytest.raises(DotsZooError, match="input: expected HEIGHTxWIDTH, such as 224x320, got"):
            image_size(text)
