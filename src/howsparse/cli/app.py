"""The Typer application. The command modules add their commands to it."""

import typer

__all__ = ["app"]

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def howsparse() -> None:
    """Compute how sparse a neural network can be pruned before its loss increases."""
