"""Figures that only notebooks draw: bars, histograms, and all knobs side by side."""

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from recsys_utils.report import style
from recsys_utils.report.study_figures import METRICS, knob
from recsys_utils.report.style import PALETTE
from recsys_utils.report.wording import num


def bars(series: pd.Series, xlabel: str = "", shade: str = PALETTE["factorization"]) -> Axes:
    """A series as horizontal bars with values, in its own order from the top."""
    y = np.arange(len(series))[::-1]
    ax = style.axes(0.7 + 0.25 * len(series), "x")
    drawn = ax.barh(y, series, height=0.7, color=shade)
    ax.bar_label(drawn, [num(value) for value in series], padding=4)
    ax.set_yticks(y, [style.tick_label(name) for name in series.index])
    ax.set_xlabel(xlabel)
    ax.margins(x=0.14)
    return ax


def histogram(
    values: Iterable[float],
    xlabel: str = "",
    bins: int = 40,
    log: bool = False,
    ax: Axes | None = None,
) -> Axes:
    """How values are spread; `log` makes bins of equal width on a log scale, of positive values."""
    values = pd.Series(values, dtype=float).dropna()
    ax = style.axes(3.0, "y", ax)
    edges = bins
    if log:
        values = values[values > 0]
        if values.nunique() > 1:
            edges = np.geomspace(values.min(), values.max(), bins + 1)
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    ax.hist(values, bins=edges, color=PALETTE["factorization"])
    ax.set(xlabel=xlabel)
    return ax


def knobs(frame: pd.DataFrame, columns: int = 3) -> Axes:
    """Every knob of a `knob_costs` table side by side, on one scale."""
    groups = list(frame.groupby("knob", sort=False))
    rows = -(-len(groups) // columns)
    size = (3.2 * columns, 2.4 * rows + 0.4)
    figure, axes = plt.subplots(
        rows, columns, figsize=size, layout="constrained", squeeze=False, sharey=True
    )
    for ax, (name, part) in zip(axes.flat, groups):
        knob(part, name, legend=False, ax=ax)
    for ax in axes.flat[len(groups) :]:
        ax.set_axis_off()
    first = axes.flat[0]
    lines = first.get_legend_handles_labels()
    figure.legend(*lines, loc="outside upper left", ncols=len(METRICS), frameon=False)
    return first
