"""Cells as pictures (`layout` places, `render` inks, `draw` writes) and pages from templates (`html`)."""

from .draw import draw as draw
