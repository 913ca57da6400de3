"""One thread a process: the suite runs in parallel, and results must not depend on the machine's cores."""

import torch

torch.set_num_threads(1)
