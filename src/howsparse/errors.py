"""The exception that means: the input is at fault, and here is how to mend it."""

__all__ = ["InputError", "UnsuitableNetwork"]


class InputError(ValueError):
    """Bad usage or bad input; the message says in one line what, where, and how to mend it.

    The command line prints it without a traceback and leaves with exit code 2.
    """


class UnsuitableNetwork(InputError):
    """A method that is not for this kind of network; a comparison goes on without it."""
