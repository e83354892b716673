"""The method that CONTRIBUTING shows is run as it stands."""

import re
from pathlib import Path
from typing import Any

from howsparse.tasks import load_task

PAGE = Path(__file__).parents[1] / "CONTRIBUTING.md"


def test_the_method_shown_works() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    made: dict[str, Any] = {}
    exec(code, made)
    task = load_task("digits", epochs=2)
    ticket = made["layerwise"](task, 0.75, fine_tune=1)
    assert ticket.epochs == 3
    assert all(density == 0.25 for density in ticket.mask.layer_densities().values())
    weights = dict(ticket.model.named_parameters())
    assert all((weights[name][~kept] == 0).all() for name, kept in ticket.mask.items())
