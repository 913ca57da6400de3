"""`python -m dots_zoo`: the command dots-zoo."""

import sys

from .cli import main

sys.exit(main())
