"""Analyses of a completed search, a file each; `completed_run` reads its folder, `command` runs one."""
