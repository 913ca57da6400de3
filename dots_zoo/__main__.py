"""`python -m dots_zoo`: the command dots-zoo."""

import sys

from .commands.cli import main

sys.exit(main())
