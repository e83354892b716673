"""The exceptions for wrong input."""

__all__ = ["InputError", "UnsuitableNetwork"]


class InputError(ValueError):
    """The user's input is wrong. The message says in one line what is wrong, where, and how to correct it.

    The command line prints the message without a traceback and exits with code 2.
    """


class UnsuitableNetwork(InputError):
    """The method cannot be used for this kind of network. A comparison continues with the other methods."""
