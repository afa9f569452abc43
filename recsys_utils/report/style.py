"""What all figures share: the colours of families, markers, and quiet axes."""

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.legend import Legend
from matplotlib.ticker import MaxNLocator, PercentFormatter

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
OTHER = "#8a8f98"
MARKERS = "osD^vPX"
LONGEST_NAME = 28


def colour(family: str) -> str:
    """The colour of a family of models; grey for one that is not known."""
    return PALETTE.get(family, OTHER)


def marker(n: int) -> str:
    """The n-th marker; after the last the first comes again."""
    return MARKERS[n % len(MARKERS)]


def ink() -> str:
    """The colour of text and lines."""
    return plt.rcParams["text.color"]


def axes(height: float, grid: str = "", ax: Axes | None = None) -> Axes:
    """Quiet axes without a frame; of a new figure if none are given.

    height: inches of a new figure. grid: "x", "y", "both" or "" for no grid lines.
    """
    if ax is None:
        width = plt.rcParams["figure.figsize"][0]
        ax = plt.subplots(figsize=(width, height), layout="constrained")[1]
    ax.spines[:].set_visible(False)
    ax.tick_params(which="both", length=0)
    ax.set_axisbelow(True)
    if grid:
        ax.grid(True, axis=grid, alpha=0.6, lw=0.7)
    if grid in ("x", "both"):
        ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 2.5, 5, 10]))
    return ax


def legend(ax: Axes) -> Legend:
    """A legend above the axes."""
    place = {"loc": "lower left", "bbox_to_anchor": (0, 1), "borderaxespad": 0.2}
    return ax.legend(**place, frameon=False, handletextpad=0.4)


def percent_ticks(decimals: int = 0) -> PercentFormatter:
    """Ticks of shares in percent, with a no-break space as in the text."""
    return PercentFormatter(1, decimals, symbol="\u00a0%")


def tick_label(name: object) -> str:
    """A name cut to 28 characters, in which a dollar starts no formula."""
    text = str(name)
    if len(text) > LONGEST_NAME:
        text = text[: LONGEST_NAME - 1] + "…"
    return text.replace("$", r"\$")
