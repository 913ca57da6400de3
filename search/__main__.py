"""Run `dots-zoo search METHOD ...` as `python -m dots_zoo.search METHOD ...`."""

import sys

from dots_zoo.runtime.errors import DotsZooError

from .run.command import main

if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except DotsZooError as error:
        print(f"dots-zoo search: error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
