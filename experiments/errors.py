"""What a user can do wrong, or a machine: reported as one line, without a traceback."""


class ExperimentError(Exception):
    """An error whose message is all that a user needs to see."""
