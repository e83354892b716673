"""The methods that draw a limit or a measurement as a picture, and write them as a page.

The code that draws is in a later room, `howsparse.report`. It is imported by name at the first call. So this room does
not import from a later room, and matplotlib is needed only for drawing.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from howsparse.shown import Shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from howsparse.limit.certificate import Certificate
    from howsparse.limit.measure import Measured

__all__ = ["Drawn", "Reported"]


class Drawn(Shown):
    """A result that can be drawn by matplotlib."""

    def plot(self, axes: "Axes | None" = None) -> "Axes":
        """Draw the result by matplotlib.

        Args:
            axes: where to draw; by default the axes of a new figure of pyplot.

        Returns:
            The axes, to which more can be added. ``axes.figure.savefig(path)`` writes the picture.
        """
        drawn: Axes = _report("drawing").draw(self, axes)
        return drawn


class Reported(Drawn):
    """A result that can be written as a page."""

    def report(
        self,
        path: str | Path,
        *,
        title: str = "A network",
        measured: "Measured | None" = None,
        on_train: "Measured | None" = None,
        certificate: "Certificate | None" = None,
        force: bool = False,
    ) -> None:
        """Write a page with the limit and, if they are given, with what was measured and certified.

        The page is one HTML file that needs no network. Its slider changes the tolerance, and all answers follow it.

        Args:
            path: the file, which ends in .html.
            title: name of the network.
            measured: measured curve of the metric, for example on test data. Its goal is where the slider starts.
            on_train: measured curve of the loss on the data of the limit; by default ``measured`` stands for it.
            certificate: what was certified on held-out data.
            force: whether an existing file is replaced.

        Raises:
            InputError: the file exists and ``force`` is False, its name does not end in .html, or a measured curve is
                of another order than magnitude.

        >>> import tempfile, torch
        >>> from howsparse import pruning_limit
        >>> model = torch.nn.Linear(8, 8)
        >>> batches = [(torch.eye(8), torch.arange(8))] * 16
        >>> limit = pruning_limit(model, batches, tolerance=0.05, progress=False)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     limit.report(f"{folder}/report.html", title="One layer")
        """
        contents: Any = _report("contents").contents_of
        shown = contents(self, title=title, measured=measured, on_train=on_train, certificate=certificate)
        _report("page").write_page(shown, path, force=force)


def _report(name: str) -> Any:
    """A module of the room that draws."""
    return import_module(f"howsparse.report.{name}")
