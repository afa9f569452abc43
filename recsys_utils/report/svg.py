"""Figures as inline SVG that follows the page's colours and font."""

import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

# Colours that stand for the page's own while a figure is drawn for the report.
INK = "#010203"
GRID = "#040506"
FONT_SIZE = 10.5
INLINE = {
    "svg.fonttype": "none",
    "figure.figsize": (4.6, 3.3),
    "font.size": FONT_SIZE,
    "axes.titlesize": FONT_SIZE,
    "axes.labelsize": FONT_SIZE,
    "xtick.labelsize": FONT_SIZE,
    "ytick.labelsize": FONT_SIZE,
    "legend.fontsize": FONT_SIZE,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "grid.color": GRID,
    "legend.labelcolor": INK,
}
# What matplotlib writes and a page does not need: metadata, comments, sizes in points, ids.
SUPERFLUOUS = re.compile(
    r"<metadata>.*?</metadata>|<!--.*?-->"
    r'| (?:width|height)="[\d.]+pt"'
    r'| xmlns:xlink="[^"]*"'
    r'| version="[^"]*"'
    r'| id="[a-zA-Z0-9.]+_\d+"',
    re.DOTALL,
)


def figure(caption: str, draw: Callable[..., Axes], *args: object) -> tuple[str, str]:
    """A figure for the report: its SVG and its caption."""
    return svg(caption, draw, *args), caption


def svg(title: str, draw: Callable[..., Axes], *args: object, **options: object) -> str:
    """What `draw` draws, as inline SVG; the same bytes every time. `title` is read aloud."""
    with _page_style(title):
        ax = draw(*args, **options)
        buffer = io.StringIO()
        dates = dict.fromkeys(("Date", "Creator", "Format", "Type"))
        ax.figure.savefig(buffer, format="svg", transparent=True, metadata=dates)
        plt.close(ax.figure)
    text = buffer.getvalue()
    text = SUPERFLUOUS.sub("", text[text.index("<svg") :])
    text = re.sub(r"(font: [\d.]+px)[^;\"]*", r"\1 system-ui, sans-serif", text)
    text = re.sub(r"\n\s*", "\n", text)
    text = text.replace("xlink:href", "href")
    text = text.replace(INK, "currentColor").replace(GRID, "var(--line)")
    return text.replace("<svg", f'<svg role="img" aria-label="{escape(title)}"', 1)


@contextmanager
def _page_style(salt: str) -> Iterator[None]:
    # Loads the backend now: loaded inside, a notebook's would forget to show later figures.
    plt.close(plt.figure())
    # Ids within an SVG come from the salt: two figures on one page must not share any.
    with plt.rc_context({**INLINE, "svg.hashsalt": salt}):
        yield
