"""The Typer application. The command modules add their commands to it."""

import typer

__all__ = ["COMMANDS", "app"]

COMMANDS = (  # in the order in which a new user needs them
    *("demo", "measure", "certify", "prune", "bench", "audit", "limit", "report"),
    *("train", "compare", "sweep", "run", "table", "figure"),
)

app = typer.Typer(add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False)


@app.callback()
def howsparse() -> None:
    """Find out how sparse a neural network can get before it gets worse, prune it, and certify the result."""
