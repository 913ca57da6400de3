"""A whole search: `options` (the command line), `run` (its folder), `seeds`, `plots` and `report`."""
