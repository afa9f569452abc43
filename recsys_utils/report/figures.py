"""Figures of a leaderboard and of tables: a function of a tidy frame each, returning its Axes.

A colour says the family, words say the model.
"""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import FuncFormatter

from recsys_utils.evaluation.leaderboard import best_first
from recsys_utils.evaluation.slices import STRATA
from recsys_utils.report import style
from recsys_utils.report.point_labels import label_points
from recsys_utils.report.style import colour
from recsys_utils.report.wording import display_name, metric_label, num

SMALLEST_GROUP = 10  # fewer users say nothing
MOST_MODELS = 8  # in one figure
MOST_FAMILIES = 5  # the best model of each, in figures that cannot hold all
SHARES = ("revenue_share", "coverage", "repeat_share", "hit_rate")
LINE_COLOURS = list(style.PALETTE.values())


def few(board: pd.DataFrame, wanted: list[str | None] = ()) -> pd.DataFrame:
    """The leaderboard of at most eight models.

    Those that are wanted, then the best of each family, then the best of the rest.
    """
    rows = best_first(board)
    families = rows.drop_duplicates("family")["model"]
    order = dict.fromkeys([*(model for model in wanted if model), *families, *rows["model"]])
    return board[board["model"].isin(list(order)[:MOST_MODELS])]


def leaderboard_bars(board: pd.DataFrame, metric: str = "precision", k: int = 5) -> Axes:
    """Models as horizontal bars, best on top, with values and 95 % intervals (warm shoppers)."""
    rows = best_first(board, metric, k)[::-1]
    value = rows["value"]
    low = rows["lo"].fillna(value)
    high = rows["hi"].fillna(value)
    y = np.arange(len(rows))
    ax = style.axes(0.6 + 0.25 * len(rows), "x")
    ax.barh(y, value, height=0.7, color=rows["family"].map(colour))
    interval = np.array([value - low, high - value])
    ax.errorbar(value, y, xerr=interval, fmt="none", ecolor=style.ink(), elinewidth=1.1)
    for place, end, number in zip(y, high, value):
        ax.annotate(num(number), (end, place), (5, 0), textcoords="offset points", va="center")
    interval_label = ", 95 % interval" if rows["lo"].notna().any() else ""
    ax.set(
        xlim=(0, high.max() * 1.22 or 1),
        ylim=(-0.6, len(rows) - 0.4),
        xlabel=metric_label(metric, k) + interval_label,
    )
    ax.set_yticks(y, rows["model"].map(display_name))
    return ax


def tradeoff(board: pd.DataFrame, x: str, k: int = 5) -> Axes:
    """Models as points: precision against another metric, or `seconds` to fit and recommend."""
    rows = best_first(board, "precision", k).set_index("model")
    if x == "seconds":
        rows["x"] = rows["fit_seconds"] + rows["recommend_seconds"]
    else:
        rows["x"] = best_first(board, x, k).set_index("model")["value"]
    ax = style.axes(3.3, "both")
    ax.scatter(rows["x"], rows["value"], s=42, c=rows["family"].map(colour), zorder=3)
    ax.set(xlabel=metric_label(x, k), ylabel=metric_label("precision", k))
    if x == "seconds":
        ax.set_xlabel("Seconds to fit and recommend (log scale)")
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    elif x in SHARES:
        ax.xaxis.set_major_formatter(style.percent_ticks())
    ax.margins(0.08, 0.14)
    ax.autoscale_view()
    room_for_names = ax.transAxes.transform((1.35, 0))
    ax.set_xlim(right=ax.transData.inverted().transform(room_for_names)[0])
    label_points(ax, rows["x"], rows["value"], rows.index.map(display_name))
    return ax


def groups_of(board: pd.DataFrame, prefix: str) -> list[str]:
    """Groups of users of one kind that are large enough to be shown."""
    groups = board.loc[board["users"] >= SMALLEST_GROUP, "users_scope"].unique()
    return [group for group in groups if group.startswith(prefix)]


def by_group(board: pd.DataFrame, prefix: str = "history: ") -> Axes:
    """Precision@5 per group of at least ten users, for the best models of different families."""
    groups = groups_of(board, prefix)
    if not groups:
        return _nothing("no group has ten shoppers")
    rows = {group.removeprefix(prefix): best_first(board, users=group) for group in groups}
    return _dots(rows, _best_of_families(board), metric_label("precision", 5))


def strata_of(board: pd.DataFrame) -> list[str]:
    """Strata of popularity from which enough shoppers bought to be shown."""
    scopes = set(board.loc[board["users"] >= SMALLEST_GROUP, "scope"])
    return [stratum for stratum in STRATA if stratum in scopes]


def by_popularity(board: pd.DataFrame, k: int = 10) -> Axes:
    """Recall by head, middle and tail of the catalogue, for warm shoppers.

    Of the best models of different families.
    """
    rows = {stratum: best_first(board, "recall", k, stratum) for stratum in strata_of(board)}
    return _dots(rows, _best_of_families(board), metric_label("recall", k))


def repeat_vs_new(board: pd.DataFrame) -> Axes:
    """Precision@5 on items bought before and on items new to the shopper, side by side."""
    new = best_first(board, scope="new").set_index("model")
    repeat = best_first(board, scope="repeat").set_index("model")["value"]
    rows = new.join(repeat.rename("repeat"), how="inner").sort_values("repeat")
    colours = rows["family"].map(colour)
    y = np.arange(len(rows))
    ax = style.axes(1.1 + 0.24 * len(rows), "x")
    ax.hlines(y, rows["value"], rows["repeat"], colors=colours, lw=1.6, alpha=0.45)
    dots = {"zorder": 3, "clip_on": False}
    filled = ax.scatter(rows["repeat"], y, s=44, c=colours, label="bought before", **dots)
    hollow = ax.scatter(rows["value"], y, s=40, label="new to the shopper", **dots)
    hollow.set(facecolors="none", edgecolors=colours, linewidths=1.8)
    ax.set_yticks(y, rows.index.map(display_name))
    ax.set(ylim=(-0.6, len(rows) - 0.4), xlabel="Precision@5")
    ax.set_xlim(left=0)
    for mark in style.legend(ax).legend_handles:
        is_filled = mark.get_label() == filled.get_label()
        mark.set_edgecolor(style.ink())
        mark.set_facecolor(style.ink() if is_filled else "none")
    return ax


def heatmap(frame: pd.DataFrame, title: str = "") -> Axes:
    """A symmetric models × models table of shares in percent, below its diagonal.

    Columns are numbered like the rows.
    """
    n = len(frame)
    shares = frame.to_numpy(float)
    below = np.ma.masked_where(~np.tri(n, k=-1, dtype=bool), shares)
    top = below.max() if below.count() else 1
    blue = (0.25, 0.53, 0.79)
    fade = LinearSegmentedColormap.from_list("fade", [(*blue, 0.04), (*blue, 0.75)])
    ax = style.axes(0.9 + 0.29 * n)
    ax.pcolor(below, cmap=fade, vmin=0, vmax=top or 1)
    for row in range(n):
        for column in range(row):
            share = f"{100 * shares[row, column]:.0f}"
            ax.text(column + 0.5, row + 0.5, share, ha="center", va="center")
    middle = np.arange(n) + 0.5
    rows = [f"{display_name(str(model))}  {row}" for row, model in enumerate(frame.index, 1)]
    ax.set_xticks(middle[:-1], range(1, n))
    ax.set_yticks(middle, rows)
    ax.set(xlim=(0, max(1, n - 1)), ylim=(n, 0), title=title)
    return ax


def curve(
    frame: pd.DataFrame, x: str, y: str, by: str | None = None, ax: Axes | None = None
) -> Axes:
    """A line per value of `by`, or one line.

    A column `family` gives the colours; columns `lo` and `hi` make a band.
    """
    lines = list(frame.groupby(by, sort=False)) if by else [("", frame)]
    ax = style.axes(3.3 + 0.2 * max(0, len(lines) - 3), "both", ax)
    for n, (name, rows) in enumerate(lines):
        rows = rows.sort_values(x)
        shade = LINE_COLOURS[(3 + 5 * n) % len(LINE_COLOURS)]
        if "family" in rows:
            shade = colour(rows["family"].iloc[0])
        line = {"marker": style.marker(n), "ms": 4.5, "lw": 1.8, "color": shade}
        ax.plot(rows[x], rows[y], label=display_name(str(name)), **line)
        if {"lo", "hi"} <= set(rows):
            band = {"color": shade, "alpha": 0.15, "lw": 0}
            ax.fill_between(rows[x].astype(float), rows["lo"], rows["hi"], **band)
    ax.set(xlabel=x, ylabel=y)
    if by:
        style.legend(ax)
    return ax


def _best_of_families(board: pd.DataFrame) -> list[str]:
    """The best model of each of the best families, best first."""
    return list(best_first(board).drop_duplicates("family").head(MOST_FAMILIES)["model"])


def _dots(parts: dict[str, pd.DataFrame], models: list[str], label: str) -> Axes:
    """A line per part, on it a dot and a 95 % interval per model.

    parts: rows of the leaderboard by name.
    """
    parts = {name: rows.set_index("model") for name, rows in parts.items()}
    lines = len(parts) * len(models)
    height = 0.9 + 0.22 * len(parts) + 0.11 * lines + 0.2 * len(models)
    ax = style.axes(height, "x")
    step = 0.7 / len(models)
    middle = (len(models) - 1) / 2
    for n, model in enumerate(models):
        rows = pd.DataFrame([rows.loc[model] for rows in parts.values()])
        ax.errorbar(
            rows["value"],
            np.arange(len(parts)) + (n - middle) * step,
            xerr=np.array([rows["value"] - rows["lo"], rows["hi"] - rows["value"]], float),
            fmt=style.marker(n),
            color=colour(rows["family"].iloc[0]),
            ms=5.5,
            elinewidth=1.2,
            label=display_name(model),
        )
    ticks = []
    for name, rows in parts.items():
        ticks.append(f"{style.tick_label(name)} ({rows['users'].iloc[0]:,})")
    ax.set_yticks(range(len(parts)), ticks)
    ax.set(ylim=(len(parts) - 0.5, -0.5), xlabel=f"{label}, 95 % interval")
    ax.set_xlim(left=0)
    style.legend(ax)
    return ax


def _nothing(why: str) -> Axes:
    ax = style.axes(0.6)
    ax.text(0.5, 0.5, why, ha="center", va="center", transform=ax.transAxes)
    ax.set_axis_off()
    return ax
