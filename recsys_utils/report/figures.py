"""Figures: a function of a tidy frame each, returning its Axes. A colour says the family, words say the model."""

import io
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.ticker import FuncFormatter, MaxNLocator, PercentFormatter
from matplotlib.transforms import Bbox

PALETTE = {
    "popularity": "#8a8f98",
    "repeat": "#d99a00",
    "item neighbours": "#1a9e8f",
    "factorization": "#3f86c9",
    "lightfm": "#6cb8e6",
    "next basket": "#a65bb5",
    "preference pairs": "#9a9a2e",
    "two tower": "#c2587f",
    "two stage": "#d9541e",
    "hybrid": "#3d9950",
    "online": "#7c72d8",
}
MARKERS = "osD^vPX"
GROUP = 10  # fewer users say nothing
SHARES = ("revenue_share", "coverage", "repeat_share", "hit_rate")
OTHER = "#8a8f98"
LABELS = {
    "precision": "Precision",
    "recall": "Recall",
    "ndcg": "nDCG",
    "map": "MAP",
    "mrr": "MRR",
    "hit_rate": "Hit rate",
    "revenue": "Revenue",
    "revenue_share": "Revenue share",
    "coverage": "Coverage",
    "gini": "Gini",
    "novelty": "Novelty",
    "diversity": "Diversity",
    "repeat_share": "Repeat share",
    "mean_price": "Mean price",
}
WORDS = {
    "als": "ALS",
    "bpr": "BPR",
    "ease": "EASE",
    "bm25": "BM25",
    "tfidf": "TF-IDF",
    "cf": "CF",
    "upcf": "UP-CF",
    "knn": "kNN",
    "tifu": "TIFU",
    "tifuknn": "TIFU-KNN",
    "gp": "GP",
    "topfreq": "TopFreq",
    "lightfm": "LightFM",
    "warp": "WARP",
    "rrf": "RRF",
    "mmr": "MMR",
    "tf": "TF",
    "idf": "IDF",
    "up": "UP",
    "kl": "KL",
    "co": "co-",
    "own": "own purchases",
    "ids": "IDs",
    "system3": "system 3",
}
# Colours that stand for the page's own while a figure is drawn for the report.
INK, GRID = "#010203", "#040506"
INLINE = {
    "svg.fonttype": "none",
    "figure.figsize": (4.6, 3.3),
    "font.size": 10.5,
    "axes.titlesize": 10.5,
    "axes.labelsize": 10.5,
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "legend.fontsize": 10.5,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "legend.labelcolor": INK,
}


def display_name(model: str) -> str:
    """A run's name in words: `popular_28d` is "Popular, 28 days", `hybrid_40_40_20` is "Hybrid 40/40/20"."""
    parts = [
        re.sub(r"^(\d+)d$", r"\1 days", part)
        for part in re.sub(r"(?<=\d)_(?=\d)", "/", model).split("_")
    ]
    words = [WORDS.get(part, part) for part in parts]
    if parts[-1] == "own" and len(parts) > 1:
        words[-1] = "with own purchases"
    head, rest = words[0], " ".join(words[1:]).replace("co- ", "co-")
    text = (
        f"{head}, {rest}"
        if parts[0] in ("popular", "own") and rest
        else f"{head} {rest}".strip().replace("co- ", "co-")
    )
    return text[:1].upper() + text[1:]


def num(value: float) -> str:
    """Three significant digits with thousands separators; "–" where there is no value."""
    if value is None or not np.isfinite(value):
        return "–"
    if float(value).is_integer() and abs(value) < 1000:
        return f"{value:.0f}"
    if 0 < abs(value) < 0.0005:
        return "< 0.001"
    digits = min(5, 2 - int(np.floor(np.log10(abs(float(f"{value:.3g}"))))))
    return f"{round(value, digits):,.{max(digits, 0)}f}"


def percent(share: float) -> str:
    """A share in percent, held together by a no-break space."""
    return f"{num(100 * share)}\u00a0%"


def seconds(value: float) -> str:
    """Seconds with no more digits than a clock deserves."""
    return "< 0.01" if 0 < value < 0.01 else f"{value:.2f}" if value < 10 else num(value)


def colour(family: str) -> str:
    """The colour of a family of models; grey for one that is not known."""
    return PALETTE.get(family, OTHER)


def pick(
    board: pd.DataFrame,
    metric: str = "precision",
    k: int = 5,
    scope: str = "any",
    users: str = "warm",
) -> pd.DataFrame:
    """The leaderboard's rows of one number in its first (newest) fold, best first."""
    rows = board[
        (board["metric"] == metric)
        & (board["k"] == k)
        & (board["scope"] == scope)
        & (board["users_scope"] == users)
    ]
    rows = rows[rows["fold"] == board["fold"].iloc[0]]
    return rows.sort_values(["value", "model"], ascending=[False, True], ignore_index=True)


def groups_of(board: pd.DataFrame, prefix: str) -> list[str]:
    """Groups of users of one kind that are large enough to be shown."""
    groups = board.loc[board["users"] >= GROUP, "users_scope"].unique()
    return [g for g in groups if g.startswith(prefix)]


def leaderboard_bars(
    board: pd.DataFrame,
    metric: str = "precision",
    k: int = 5,
    scope: str = "any",
    users: str = "warm",
    ax: Axes | None = None,
) -> Axes:
    """Models as horizontal bars, best on top, with 95 % intervals and values."""
    rows = pick(board, metric, k, scope, users)[::-1]
    low, high = rows["lo"].fillna(rows["value"]), rows["hi"].fillna(rows["value"])
    ax, y = _axes(ax, 0.6 + 0.25 * len(rows), "x"), np.arange(len(rows))
    ax.barh(y, rows["value"], height=0.7, color=[colour(f) for f in rows["family"]])
    ax.errorbar(
        rows["value"],
        y,
        xerr=np.array([rows["value"] - low, high - rows["value"]]),
        fmt="none",
        ecolor=_ink(),
        elinewidth=1.1,
    )
    for at, end, value in zip(y, high, rows["value"]):
        ax.annotate(num(value), (end, at), (5, 0), textcoords="offset points", va="center")
    ax.set(
        yticks=y,
        yticklabels=[display_name(m) for m in rows["model"]],
        xlim=(0, high.max() * 1.22 or 1),
        ylim=(-0.6, len(rows) - 0.4),
        xlabel=f"{LABELS.get(metric, metric)}@{k}"
        + (", 95 % interval" if rows["lo"].notna().any() else ""),
    )
    return ax


def tradeoff(
    board: pd.DataFrame, x: str, y: str = "precision", k: int = 5, ax: Axes | None = None
) -> Axes:
    """Models as points: accuracy against another metric, or `seconds` of fitting and recommending."""
    rows = pick(board, y, k).set_index("model")
    rows["x"] = (
        rows["fit_seconds"] + rows["recommend_seconds"]
        if x == "seconds"
        else pick(board, x, k).set_index("model")["value"]
    )
    ax = _axes(ax, 3.3, "both")
    ax.scatter(rows["x"], rows["value"], s=42, c=[colour(f) for f in rows["family"]], zorder=3)
    if x == "seconds":
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    elif x in SHARES:
        ax.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    ax.margins(0.08, 0.14)
    ax.autoscale_view()
    ax.set_xlim(
        right=ax.transData.inverted().transform(ax.transAxes.transform((1.35, 0)))[0]
    )  # room for names
    ax.set(
        xlabel="Seconds to fit and recommend (log scale)"
        if x == "seconds"
        else f"{LABELS.get(x, x)}@{k}",
        ylabel=f"{LABELS.get(y, y)}@{k}",
    )
    _label(ax, rows["x"], rows["value"], [display_name(m) for m in rows.index])
    return ax


def by_group(
    board: pd.DataFrame,
    prefix: str = "history: ",
    metric: str = "precision",
    k: int = 5,
    models: int = 5,
    ax: Axes | None = None,
) -> Axes:
    """Accuracy per group of at least ten users, for the best model of each of the best families."""
    best = pick(board, metric, k).drop_duplicates("family").head(models)["model"].tolist()
    groups = groups_of(board, prefix)
    if not groups:
        ax = _axes(ax, 0.6, "x")
        ax.text(
            0.5, 0.5, "no group has ten shoppers", ha="center", va="center", transform=ax.transAxes
        )
        ax.set_axis_off()
        return ax
    ax, step = (
        _axes(ax, 0.9 + len(groups) * (0.22 + 0.11 * len(best)) + 0.2 * len(best), "x"),
        0.7 / max(1, len(best)),
    )
    for n, model in enumerate(best):
        rows = pd.concat([pick(board[board["model"] == model], metric, k, users=g) for g in groups])
        y = np.arange(len(groups)) + (n - (len(best) - 1) / 2) * step
        spread = np.array([rows["value"] - rows["lo"], rows["hi"] - rows["value"]])
        ax.errorbar(
            rows["value"],
            y,
            xerr=spread,
            fmt=MARKERS[n % len(MARKERS)],
            color=colour(rows["family"].iloc[0]),
            ms=5.5,
            elinewidth=1.2,
            label=display_name(model),
        )
    users = [pick(board, metric, k, users=g)["users"].iloc[0] for g in groups]
    ax.set(
        yticks=range(len(groups)),
        yticklabels=[f"{_plain(g.removeprefix(prefix))} ({n:,})" for g, n in zip(groups, users)],
        ylim=(len(groups) - 0.5, -0.5),
        xlabel=f"{LABELS.get(metric, metric)}@{k}, 95 % interval",
    )
    ax.set_xlim(left=0)
    _legend(ax)
    return ax


def repeat_vs_new(
    board: pd.DataFrame, metric: str = "precision", k: int = 5, ax: Axes | None = None
) -> Axes:
    """Models on two scopes side by side: items that the shopper had bought, and items new to the shopper."""
    new, repeat = (pick(board, metric, k, scope).set_index("model") for scope in ("new", "repeat"))
    rows = new.join(repeat["value"].rename("repeat"), how="inner").sort_values("repeat")
    ax, y, colours = (
        _axes(ax, 1.1 + 0.24 * len(rows), "x"),
        np.arange(len(rows)),
        [colour(f) for f in rows["family"]],
    )
    ax.hlines(y, rows["value"], rows["repeat"], colors=colours, lw=1.6, alpha=0.45)
    ax.scatter(rows["repeat"], y, s=44, c=colours, label="bought before", zorder=3)
    ax.scatter(
        rows["value"],
        y,
        s=40,
        facecolors="none",
        edgecolors=colours,
        linewidths=1.8,
        label="new to the shopper",
        zorder=3,
    )
    ax.set(
        yticks=y,
        yticklabels=[display_name(m) for m in rows.index],
        ylim=(-0.6, len(rows) - 0.4),
        xlabel=f"{LABELS.get(metric, metric)}@{k}",
    )
    ax.set_xlim(left=0)
    for mark in _legend(ax).legend_handles:
        mark.set_edgecolor(_ink())
        mark.set_facecolor(_ink() if mark.get_label() == "bought before" else "none")
    return ax


def heatmap(frame: pd.DataFrame, title: str = "", ax: Axes | None = None) -> Axes:
    """A symmetric models × models table of shares in percent, below its diagonal; columns are numbered like the rows."""
    ax, shares = _axes(ax, 0.9 + 0.29 * len(frame), ""), frame.to_numpy(float)
    below = np.ma.masked_where(~np.tri(len(frame), k=-1, dtype=bool), shares)
    top = below.max() if below.count() else 1
    fade = LinearSegmentedColormap.from_list(
        "fade", [(0.25, 0.53, 0.79, 0.04), (0.25, 0.53, 0.79, 0.75)]
    )
    ax.pcolor(below, cmap=fade, vmin=0, vmax=top or 1)
    for row, column in zip(*np.nonzero(~np.ma.getmaskarray(below))):
        ax.text(
            column + 0.5, row + 0.5, f"{100 * shares[row, column]:.0f}", ha="center", va="center"
        )
    at = np.arange(len(frame)) + 0.5
    ax.set(
        xticks=at[:-1],
        xticklabels=range(1, len(frame)),
        yticks=at,
        xlim=(0, max(1, len(frame) - 1)),
        ylim=(len(frame), 0),
        title=title,
        yticklabels=[f"{display_name(str(m))}  {n}" for n, m in enumerate(frame.index, 1)],
    )
    return ax


def curve(
    frame: pd.DataFrame, x: str, y: str, by: str | None = None, ax: Axes | None = None
) -> Axes:
    """A line per value of `by` (or one line); coloured by a column `family` if there is one; `lo` and `hi` make a band."""
    ax = _axes(ax, 3.3 + 0.2 * max(0, frame[by].nunique() - 3 if by else 0), "both")
    for n, (name, rows) in enumerate(frame.groupby(by, sort=False) if by else [("", frame)]):
        rows = rows.sort_values(x)
        shade = (
            colour(rows["family"].iloc[0])
            if "family" in rows
            else list(PALETTE.values())[(3 + 5 * n) % len(PALETTE)]
        )
        ax.plot(
            rows[x],
            rows[y],
            marker=MARKERS[n % len(MARKERS)],
            ms=4.5,
            lw=1.8,
            color=shade,
            label=display_name(str(name)),
        )
        if {"lo", "hi"} <= set(rows):
            ax.fill_between(
                rows[x].astype(float), rows["lo"], rows["hi"], color=shade, alpha=0.15, lw=0
            )
    ax.set(xlabel=x, ylabel=y)
    if by:
        _legend(ax)
    return ax


def bars(
    series: pd.Series,
    xlabel: str = "",
    title: str = "",
    shade: str = PALETTE["factorization"],
    ax: Axes | None = None,
) -> Axes:
    """A series as horizontal bars with values, in its own order from the top."""
    ax, y = _axes(ax, 0.7 + 0.25 * len(series), "x"), np.arange(len(series))[::-1]
    ax.bar_label(ax.barh(y, series, height=0.7, color=shade), [num(v) for v in series], padding=4)
    ax.set(yticks=y, yticklabels=[_plain(str(i)) for i in series.index], xlabel=xlabel, title=title)
    ax.margins(x=0.14)
    return ax


def histogram(
    values: Iterable[float],
    xlabel: str = "",
    title: str = "",
    bins: int = 40,
    log: bool = False,
    shade: str = PALETTE["factorization"],
    ax: Axes | None = None,
) -> Axes:
    """How values are spread; `log` makes bins of equal width on a log scale, for positive values."""
    values = pd.Series(values, dtype=float).dropna()
    values = values[values > 0] if log else values
    ax = _axes(ax, 3.0, "y")
    edges = (
        np.geomspace(values.min(), values.max(), bins + 1) if log and values.nunique() > 1 else bins
    )
    ax.hist(values, bins=edges, color=shade)
    if log:
        ax.set_xscale("log")
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.4g}"))
    ax.set(xlabel=xlabel, title=title)
    return ax


def figure(caption: str, draw: object, *args: object) -> tuple[str, str]:
    """A figure for the report: its SVG and its caption."""
    return svg(caption, draw, *args), caption


def svg(title: str, draw: Callable[..., Axes], *args: object, **options: object) -> str:
    """A figure as inline SVG that follows the page's colours and font; the same bytes every time."""
    with _drawing(title):
        ax, buffer = draw(*args, **options), io.StringIO()
        ax.figure.savefig(
            buffer,
            format="svg",
            transparent=True,
            metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")),
        )
        plt.close(ax.figure)
    text = buffer.getvalue()
    text = re.sub(
        r"<metadata>.*?</metadata>|<!--.*?-->", "", text[text.index("<svg") :], flags=re.DOTALL
    )
    text = re.sub(
        r' (?:width|height)="[\d.]+pt"| xmlns:xlink="[^"]*"| version="[^"]*"| id="[a-zA-Z0-9.]+_\d+"',
        "",
        text,
    )
    text = (
        re.sub(r"(font: [\d.]+px)[^;\"]*", r"\1 system-ui, sans-serif", text)
        .replace("xlink:href", "href")
        .replace(INK, "currentColor")
    )
    label = title.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return re.sub(r"\n\s*", "\n", text.replace(GRID, "var(--line)")).replace(
        "<svg", f'<svg role="img" aria-label="{label}"', 1
    )


@contextmanager
def _drawing(salt: str) -> Iterator[None]:
    # Ids within an SVG come from the salt: two figures on one page must not share any.
    plt.close(
        plt.figure()
    )  # loads the backend now: loaded inside, a notebook's would forget to show later figures
    with plt.rc_context({**INLINE, "svg.hashsalt": salt}):
        yield


def _axes(ax: Axes | None, height: float, grid: str) -> Axes:
    """Quiet axes, of a new figure if none are given."""
    if ax is None:
        ax = plt.subplots(
            figsize=(plt.rcParams["figure.figsize"][0], height), layout="constrained"
        )[1]
    ax.spines[:].set_visible(False)
    ax.tick_params(which="both", length=0)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(True, axis=grid, alpha=0.6, lw=0.7)
    if grid in ("x", "both"):
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    return ax


def _plain(name: str) -> str:
    # A dollar in a name is no formula.
    return (name if len(name) <= 28 else f"{name[:27]}…").replace("$", r"\$")


def _ink() -> str:
    return plt.rcParams["text.color"]


def _legend(ax: Axes) -> object:
    return ax.legend(
        loc="lower left", bbox_to_anchor=(0, 1), frameon=False, borderaxespad=0.2, handletextpad=0.4
    )


def _label(ax: Axes, x: pd.Series, y: pd.Series, names: list[str]) -> None:
    """Name points, the longest name first, each at the first free place around it; a name without room is left to the table."""
    ax.figure.draw_without_rendering()
    points = ax.transData.transform(np.column_stack([x, y]))
    scale = ax.figure.dpi / 72
    taken, frame = (
        [Bbox.from_extents(*(p - 4 * scale), *(p + 4 * scale)) for p in points],
        ax.get_window_extent(),
    )
    for n in sorted(range(len(names)), key=lambda n: -len(names[n])):
        for dx, dy in _places():
            far = max(abs(dx), abs(dy)) > 14
            if (
                not far
                and np.hypot(*(points - points[n] - scale * np.array([dx, dy])).T).argmin() != n
            ):
                continue  # there, the name would seem to be another point's
            at, offset = (
                (x.iloc[n], y.iloc[n]),
                {"xytext": (dx, dy), "textcoords": "offset points", "annotation_clip": False},
            )
            text = ax.annotate(
                names[n],
                at,
                va="center",
                ha="left" if dx > 0 else "right" if dx < 0 else "center",
                **offset,
            )
            box = text.get_window_extent()
            if (
                frame.x0 <= box.x0
                and box.x1 <= frame.x1
                and frame.y0 <= box.y0
                and box.y1 <= frame.y1
                and not box.count_overlaps(taken)
            ):
                taken.append(box)
                if far:
                    ax.annotate(
                        "",
                        at,
                        arrowprops={
                            "arrowstyle": "-",
                            "lw": 0.6,
                            "color": _ink(),
                            "shrinkA": 0,
                            "shrinkB": 3,
                        },
                        **offset,
                    )
                break
            text.remove()


def _places() -> list[tuple[int, int]]:
    near = [(8, 0), (-8, 0), (0, 11), (0, -11), (7, 9), (7, -9), (-7, 9), (-7, -9)]
    return near + [
        (sx * r, sy * d)
        for r, d in ((14, 20), (24, 14), (20, 30), (32, 22))
        for sx in (1, -1)
        for sy in (1, -1)
    ]
