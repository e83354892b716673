"""The application that commands register with."""

import typer

__all__ = ["app"]

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def howsparse() -> None:
    """How sparse can a neural network be pruned before it gets worse? Computed, not swept for."""
