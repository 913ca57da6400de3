"""Stages of a search and the training loop that runs them.

Reading order: `stage` (the data types), `init_stage` (how a stage begins), `steps` (training steps), `loop`
(the one training loop), `validate` (accuracy on the validation split). `operation_search` is shared by all
operation searches, `config` holds the hyperparameters that every search has, `split` divides the training
images, `checkpoint` saves and loads a search, `figures` names what the log holds; `gumbel`, `auxiliary_skip`
and `resting` serve several methods.
"""
