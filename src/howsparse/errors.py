"""The exceptions for wrong input."""

__all__ = ["InputError", "UnsuitableNetwork"]


class InputError(ValueError):
    """The user's input is wrong. The message says in one line what is wrong, where, and how to correct it.

    The command line prints the message without a traceback and exits with code 2.

    >>> raise InputError("sparsity 1.5 is outside [0, 1); give the fraction of weights to remove")
    Traceback (most recent call last):
        ...
    howsparse.errors.InputError: sparsity 1.5 is outside [0, 1); give the fraction of weights to remove
    """


class UnsuitableNetwork(InputError):
    """The method cannot be used for this kind of network. A comparison continues with the other methods."""
