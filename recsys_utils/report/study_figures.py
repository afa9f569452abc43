"""Figures of what notebooks found: what parts are worth, what knobs cost, how confidence holds."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from recsys_utils.report import style
from recsys_utils.report.style import PALETTE
from recsys_utils.report.wording import LABELS, display_name

METRICS = {
    "precision": PALETTE["factorization"],
    "revenue_share": PALETTE["two stage"],
    "mean_price": PALETTE["popularity"],
}
SHADES = [PALETTE[family] for family in ("hybrid", "two stage", "factorization", "popularity")]


def change(
    frame: pd.DataFrame, xlabel: str = "Change of Precision@5", reach: float | None = None
) -> Axes:
    """A dot with its interval per row of `without`, `change`, `low`, `high`; zero is drawn.

    A dot is filled if its interval leaves zero out. The axis goes from −reach to reach, so that
    figures side by side compare.
    """
    rows = frame.reset_index(drop=True)
    if not reach:
        reach = 1.1 * rows[["change", "low", "high"]].abs().max(axis=None) or 1
    is_sure = (rows["low"] > 0) | (rows["high"] < 0)
    shade = PALETTE["two stage"]
    ax = style.axes(0.8 + 0.26 * len(rows), "x")
    ax.axvline(0, color=style.ink(), lw=0.9)
    ax.hlines(rows.index, rows["low"], rows["high"], colors=shade, lw=1.6)
    dots = ax.scatter(rows["change"], rows.index, s=40, linewidths=1.6, zorder=3)
    dots.set(facecolors=np.where(is_sure, shade, "none"), edgecolors=shade)
    ax.set_yticks(rows.index, rows["without"].map(style.tick_label))
    ax.set(ylim=(len(rows) - 0.4, -0.6), xlim=(-reach, reach), xlabel=xlabel)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _signed(value)))
    return ax


def knob(frame: pd.DataFrame, title: str = "", legend: bool = True, ax: Axes | None = None) -> Axes:
    """What the values of one knob change against the first of them.

    frame: value, precision and, with prices, revenue_share and mean_price.
    """
    changes = knob_changes(frame)
    ax = style.axes(3.1, "y", ax)
    for n, metric in enumerate(changes):
        line = {"marker": style.marker(n), "ms": 5, "lw": 1.8, "color": METRICS[metric]}
        ax.plot(range(len(frame)), changes[metric], label=LABELS[metric], **line)
    ax.axhline(0, color=style.ink(), lw=0.9)
    ax.set_xticks(range(len(frame)), frame["value"].map(style.tick_label))
    ax.set(title=title, xlim=(-0.3, len(frame) - 0.7))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _signed(100 * value) + " %"))
    if legend:
        style.legend(ax)
    return ax


def knob_changes(frame: pd.DataFrame) -> pd.DataFrame:
    """Each metric of a knob's table over its first value, minus 1; 0 where the first is 0."""
    metrics = [m for m in METRICS if m in frame and frame[m].notna().any()]
    first = frame[metrics].iloc[0]
    return (frame[metrics] / first.where(first != 0) - 1).fillna(0)


def reliability(frame: pd.DataFrame) -> Axes:
    """Share bought against confidence: a dot per bin, as large as it is full.

    On the line a confidence is true. A column `model` gives each model its own dots.
    """
    most = 1.08 * max(frame["confidence"].max(), frame["bought"].max(), 0.01)
    several = "model" in frame
    ax = style.axes(3.3, "both")
    ax.plot([0, most], [0, most], color=style.ink(), lw=0.9)
    groups = frame.groupby("model", sort=False) if several else [("", frame)]
    for n, (name, rows) in enumerate(groups):
        look = {"color": SHADES[n % len(SHADES)], "marker": style.marker(n), "zorder": 3}
        size = 20 + 60 * rows["n"] / frame["n"].max()
        label = display_name(str(name))
        ax.scatter(rows["confidence"], rows["bought"], s=size, label=label, **look)
    limits = (-0.03 * most, most)
    ax.set(xlim=limits, ylim=limits)
    ax.set(xlabel="Confidence that was claimed", ylabel="Share bought in the test window")
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(style.percent_ticks(decimals=0 if most > 0.05 else 1))
    if several:
        style.legend(ax)
    return ax


def _signed(value: float) -> str:
    if abs(value) <= 1e-12:
        return "0"
    return f"{value:+.3g}".replace("-", "−")
