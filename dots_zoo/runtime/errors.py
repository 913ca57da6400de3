"""Define the one exception that a user can fix."""


class DotsZooError(Exception):
    """An input that cannot be used, in one sentence: where, what was expected, what came, what to do.

    The command line prints the sentence and exits with `exit_code`; nothing has been written when it is
    raised.
    """

    exit_code = 2
