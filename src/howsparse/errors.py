"""The exceptions for wrong input, and the errors of other libraries in one line."""

__all__ = ["InputError", "UnsuitableNetwork", "first_line"]


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


def first_line(error: BaseException) -> str:
    """The first line of another library's error that is not empty, for a message of one line.

    Args:
        error: any exception.

    Returns:
        The line without its last full stop or semicolon; the name of the exception's type if there is no message.

    >>> first_line(RuntimeError("shapes do not match.\\nSee the manual.")), first_line(KeyboardInterrupt())
    ('shapes do not match', 'KeyboardInterrupt')
    """
    lines = (line.strip() for line in str(error).splitlines())
    return next((line.rstrip(".;") for line in lines if line), type(error).__name__)
