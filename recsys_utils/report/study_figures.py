"""Figures of a notebook's findings: what a part is worth, what a knob costs, whether a confidence keeps its word."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, PercentFormatter

from recsys_utils.report.figures import (
    LABELS,
    MARKERS,
    PALETTE,
    _axes,
    _ink,
    _legend,
    _plain,
    display_name,
    plt,
)

METRICS = {
    "precision": PALETTE["factorization"],
    "revenue_share": PALETTE["two stage"],
    "mean_price": PALETTE["popularity"],
}
SHADES = [PALETTE[family] for family in ("hybrid", "two stage", "factorization", "popularity")]


def change(
    frame: pd.DataFrame,
    label: str = "without",
    xlabel: str = "Change of Precision@5",
    reach: float | None = None,
    shade: str = PALETTE["two stage"],
    ax: Axes | None = None,
) -> Axes:
    """A dot with its interval per row of `change`, `low`, `high`, in order, zero drawn; filled where the interval leaves zero out.

    reach: the axis goes from −reach to reach, so that figures side by side compare.
    """
    rows, reach = (
        frame.reset_index(drop=True),
        reach or 1.1 * np.nanmax(np.abs(frame[["change", "low", "high"]].to_numpy(float))) or 1,
    )
    ax, sure = _axes(ax, 0.8 + 0.26 * len(rows), "x"), (rows["low"] > 0) | (rows["high"] < 0)
    ax.axvline(0, color=_ink(), lw=0.9)
    ax.hlines(rows.index, rows["low"], rows["high"], colors=shade, lw=1.6)
    ax.scatter(
        rows["change"],
        rows.index,
        s=40,
        facecolors=np.where(sure, shade, "none"),
        edgecolors=shade,
        linewidths=1.6,
        zorder=3,
    )
    ax.set(
        yticks=rows.index,
        yticklabels=[_plain(str(name)) for name in rows[label]],
        ylim=(len(rows) - 0.4, -0.6),
        xlabel=xlabel,
    )
    ax.set_xlim(-reach, reach)
    ax.xaxis.set_major_formatter(FuncFormatter(_signed))
    return ax


def knob(frame: pd.DataFrame, title: str = "", legend: bool = True, ax: Axes | None = None) -> Axes:
    """What the values of one knob change against the first of them: precision and, with prices, revenue and mean price."""
    ax, changes = _axes(ax, 3.1, "y"), knob_changes(frame)
    for n, metric in enumerate(changes):
        ax.plot(
            range(len(frame)),
            changes[metric],
            marker=MARKERS[n],
            ms=5,
            lw=1.8,
            color=METRICS[metric],
            label=LABELS[metric],
        )
    ax.axhline(0, color=_ink(), lw=0.9)
    ax.set(
        xticks=range(len(frame)),
        xticklabels=[_plain(str(v)) for v in frame["value"]],
        title=title,
        xlim=(-0.3, len(frame) - 0.7),
    )
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _signed(100 * value) + " %"))
    if legend:
        _legend(ax)
    return ax


def knob_changes(frame: pd.DataFrame) -> pd.DataFrame:
    """Each metric that a knob's table has, over its first value, minus 1."""
    metrics = [m for m in METRICS if m in frame and frame[m].notna().any()]
    first = frame[metrics].iloc[0]
    return (frame[metrics] / first.where(first != 0) - 1).fillna(0)


def knobs(frame: pd.DataFrame, columns: int = 3) -> Axes:
    """Every knob of a `knob_costs` table side by side, on one scale."""
    groups = list(frame.groupby("knob", sort=False))
    rows = -(-len(groups) // columns)
    figure, axes = plt.subplots(
        rows,
        columns,
        figsize=(3.2 * columns, 2.4 * rows + 0.4),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    for ax, (name, part) in zip(axes.flat, groups):
        knob(part, name, legend=False, ax=ax)
    for ax in axes.flat[len(groups) :]:
        ax.set_axis_off()
    figure.legend(
        *axes.flat[0].get_legend_handles_labels(),
        loc="outside upper left",
        ncols=len(METRICS),
        frameon=False,
    )
    return axes.flat[0]


def reliability(frame: pd.DataFrame, ax: Axes | None = None) -> Axes:
    """Share bought against confidence, a dot per bin as large as it is full, per `model` if there is one; on the line a confidence keeps its word."""
    ax, most = _axes(ax, 3.3, "both"), 1.08 * max(frame[["confidence", "bought"]].max().max(), 0.01)
    ax.plot([0, most], [0, most], color=_ink(), lw=0.9)
    for n, (name, rows) in enumerate(
        frame.groupby("model", sort=False) if "model" in frame else [("", frame)]
    ):
        size, shade, marker = (
            20 + 60 * rows["n"] / frame["n"].max(),
            SHADES[n % len(SHADES)],
            MARKERS[n % len(MARKERS)],
        )
        ax.scatter(
            rows["confidence"],
            rows["bought"],
            s=size,
            color=shade,
            marker=marker,
            label=display_name(str(name)),
            zorder=3,
        )
    ax.set(
        xlabel="Confidence that was claimed",
        ylabel="Share bought in the test window",
        xlim=(-0.03 * most, most),
        ylim=(-0.03 * most, most),
    )
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(PercentFormatter(1, decimals=0 if most > 0.05 else 1))
    if "model" in frame:
        _legend(ax)
    return ax


def _signed(value: float, _: int = 0) -> str:
    return f"{value:+.3g}".replace("-", "−") if abs(value) > 1e-12 else "0"
