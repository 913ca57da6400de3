"""Cells as pictures (`layout` places, `render` inks, `draw` writes) and pages (`html`)."""

from .draw import draw as draw
