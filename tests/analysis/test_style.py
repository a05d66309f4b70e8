"""What figures share of their looks."""

import pytest

from analysis import style


@pytest.mark.parametrize("values", [[1.0], [1.0, 1.0], [0.0, 1.0], [0.95, 0.99], [0.5]])
def test_an_axis_of_probabilities_has_room_for_them(values: list[float]) -> None:
    """Also where all are the same: warnings are errors."""
    _, axes = style.panels(1, 1, width=3, height=2)
    axes[0, 0].plot(values)
    style.probability_axis(axes[0, 0], values)
    low, high = axes[0, 0].get_ylim()
    assert low < min(values) <= max(values) < high
