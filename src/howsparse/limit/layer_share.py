"""The share of one layer in the change of the loss."""

from dataclasses import dataclass

__all__ = ["LayerShare"]


@dataclass(frozen=True)
class LayerShare:
    """The share of one parameter tensor in the change of the loss.

    Attributes:
        name: name of the parameter.
        num_weights: number of its entries.
        num_changed: number of entries that the change moves.
        relative_change: norm of its change divided by the norm of its weights; infinite if these are all zero.
        first_order: :math:`d_l'g_l`.
        second_order: :math:`\\tfrac12 d_l'(Hd)_l`, with the terms between this layer and all others.
        path: :math:`d_l'\\int_0^1 g_l(w + td)\\,dt`; None if the path was not computed.

    >>> LayerShare("fc.weight", 10, 5, 0.1, 0.25, 0.5, None).share
    0.75
    """

    name: str
    num_weights: int
    num_changed: int
    relative_change: float
    first_order: float
    second_order: float
    path: float | None

    @property
    def predicted(self) -> float:
        """The share in the local model."""
        return self.first_order + self.second_order

    @property
    def share(self) -> float:
        """The share along the path if it was computed; otherwise the share in the local model."""
        return self.predicted if self.path is None else self.path
