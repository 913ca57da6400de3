"""What a search is made of: `stage`, `init_stage`, `steps`, `loop` (the one training loop), `validate`.

`operation_search` is what operation searches share, `config` the numbers that every search has, `split` the
parts of the training images, `checkpoint` what is kept of a search, `gumbel` and `auxiliary_skip` what
several methods use."""
