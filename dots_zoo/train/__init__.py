"""Retrain a network: `recipe` (hyperparameters), `model` (network), `loop` (steps), `run` (a whole folder).

`state` writes and reads checkpoints, `evaluate` scores, `model_card`, `plots` and `half_weights` write what
is shared; `command` is `dots-zoo train` and `eval`; `presets/` holds the recipes of the papers.
"""
