"""What any drawn figure keeps to."""

from __future__ import annotations

import itertools

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from analysis import style


def labels_stay_inside_and_apart(figure: Figure, name: str) -> None:
    """No word is cut off at the figure's edge, and no two labels of an axis touch."""
    canvas = FigureCanvasAgg(figure)
    with style.paper():
        figure.get_layout_engine().execute(figure)  # the part of drawing that places things
    renderer = canvas.get_renderer()
    edge = figure.bbox
    for ax in (ax for ax in figure.axes if ax.get_visible()):
        labels = [label for label in ax.get_xticklabels() if label.get_visible() and label.get_text()]
        shown = [box for box in (label.get_window_extent(renderer) for label in labels) if box.width]
        inside = [box for box in shown if ax.bbox.x0 - 2 <= (box.x0 + box.x1) / 2 <= ax.bbox.x1 + 2]
        if labels and not labels[0].get_rotation():
            for left, right in itertools.pairwise(inside):
                assert left.x1 <= right.x0 + 1, (name, [label.get_text() for label in labels])
        for text in (ax.title, ax.xaxis.label, ax.yaxis.label):
            box = text.get_window_extent(renderer)
            if text.get_text():
                assert box.x0 >= edge.x0 - 1, (name, text.get_text())
                assert box.x1 <= edge.x1 + 1, (name, text.get_text())
                assert box.y0 >= edge.y0 - 1, (name, text.get_text())
                assert box.y1 <= edge.y1 + 1, (name, text.get_text())
    for legend in figure.legends:
        box = legend.get_window_extent(renderer)
        assert box.x0 >= edge.x0 - 1, name
        assert box.x1 <= edge.x1 + 1, name
