"""Run the command dots-zoo as `python -m dots_zoo`."""

import sys

from .commands.cli import main

sys.exit(main())
