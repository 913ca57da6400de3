"""Retrain a network: `recipe` (hyperparameters), `model` (network), `loop` (steps), `run` (a whole folder).

`split` holds images out, `state` writes and reads checkpoints, `score` scores;
`evaluation` is `evaluate`, `prediction` is `predict` (`classifier` opens the network, `contact_sheet` draws);
`summary`, `plots` and `half_weights` write what is shared. `api` has the functions of Python,
`command` the commands; `presets/` holds the recipes of the papers.
"""

from .api import Training, evaluate, train
from .evaluation import Evaluation
from .prediction import Predictions, predict

__all__ = ["Evaluation", "Predictions", "Training", "evaluate", "predict", "train"]
