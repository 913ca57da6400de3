"""Analyses of a completed search, a file each; `finished_search` reads its folder, `command` runs one."""
