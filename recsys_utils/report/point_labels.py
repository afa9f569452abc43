"""Names for the points of a scatter plot, placed where they cover nothing."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.text import Annotation
from matplotlib.transforms import Bbox

from recsys_utils.report import style

NEAR = ((8, 0), (-8, 0), (0, 11), (0, -11), (7, 9), (7, -9), (-7, 9), (-7, -9))
FAR = ((14, 20), (24, 14), (20, 30), (32, 22))  # to each of the four sides, with a line
POINT_SIZE = 4


def label_points(ax: Axes, x: pd.Series, y: pd.Series, names: Sequence[str]) -> None:
    """Name points, the longest name first, each at the first free place around its point.

    A name that finds no room is left out.
    """
    ax.figure.draw_without_rendering()
    points = ax.transData.transform(np.column_stack([x, y]))
    scale = ax.figure.dpi / 72
    taken = []
    for point in points:
        corner = POINT_SIZE * scale
        taken.append(Bbox.from_extents(*(point - corner), *(point + corner)))
    for n in sorted(range(len(names)), key=lambda n: -len(names[n])):
        for offset in _offsets():
            is_far = offset not in NEAR
            place = points[n] + scale * np.array(offset)
            nearest = np.hypot(*(points - place).T).argmin()
            if not is_far and nearest != n:
                continue  # there, the name would seem to be another point's
            text = _write(ax, names[n], (x.iloc[n], y.iloc[n]), offset)
            box = text.get_window_extent()
            if _inside(box, ax) and not box.count_overlaps(taken):
                taken.append(box)
                if is_far:
                    _draw_line(ax, (x.iloc[n], y.iloc[n]), offset)
                break
            text.remove()


def _offsets() -> list[tuple[int, int]]:
    """Places around a point, in typographic points, the best first."""
    places = list(NEAR)
    for right, up in FAR:
        places += [(right, up), (right, -up), (-right, up), (-right, -up)]
    return places


def _write(ax: Axes, name: str, point: tuple, offset: tuple[int, int]) -> Annotation:
    if offset[0] > 0:
        side = "left"
    elif offset[0] < 0:
        side = "right"
    else:
        side = "center"
    place = {"xytext": offset, "textcoords": "offset points", "annotation_clip": False}
    return ax.annotate(name, point, va="center", ha=side, **place)


def _draw_line(ax: Axes, point: tuple, offset: tuple[int, int]) -> None:
    place = {"xytext": offset, "textcoords": "offset points", "annotation_clip": False}
    line = {"arrowstyle": "-", "lw": 0.6, "color": style.ink(), "shrinkA": 0, "shrinkB": 3}
    ax.annotate("", point, arrowprops=line, **place)


def _inside(box: Bbox, ax: Axes) -> bool:
    frame = ax.get_window_extent()
    return frame.x0 <= box.x0 and box.x1 <= frame.x1 and frame.y0 <= box.y0 and box.y1 <= frame.y1
