"""A whole search: `command` (the command line), `run` (its folder), `seeds`, and what a person reads of it.

`report` writes the page from `summary` (words), `curves` and `plots` (pictures, `figure` is what they share).
"""
