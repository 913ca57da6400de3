"""Draw cells (`layout` computes positions, `render` draws, `draw` writes), render HTML pages (`html`)."""

from .draw import draw as draw
