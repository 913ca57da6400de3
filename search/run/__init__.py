"""A whole search: `command` (the command line), `run` (its folder), `seeds`, `plots` and `report`."""
