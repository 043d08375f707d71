"""The kinds of failure a user can act on. The command turns each into one line and an exit code."""


class UsageError(ValueError):
    """Something asked for does not exist or does not fit: the message names it and the valid choices (exit code 2)."""


class ImportNeeded(UsageError):
    """A recipe names what a module from outside the package has, which is not imported yet."""


class WriteError(UsageError):
    """A file cannot be written: no right to, or the disk is full."""


class TrainingError(RuntimeError):
    """A run that started properly cannot go on, e.g. its loss is no longer finite (exit code 1)."""
