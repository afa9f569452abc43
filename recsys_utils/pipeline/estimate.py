"""What a run will cost on this shop: seconds and memory by notebook, before anything runs."""

import pandas as pd

from recsys_utils.data import tables
from recsys_utils.memory import GIB, available_memory
from recsys_utils.models.factorization import EASE
from recsys_utils.pipeline.plan import Task

# Seconds of each notebook on the synthetic shop's 200,000 lines, measured on two cores with two
# notebooks at the same time; taken to grow with the lines.
SECONDS = {
    "01": 5,
    "02": 5,
    "03": 4,
    "04": 9,
    "05": 25,
    "06": 28,
    "07": 16,
    "08": 80,
    "09": 180,
    "10": 260,
    "11": 17,
    "12": 185,
    "13": 130,
    "14": 90,
    "15": 25,
    "16": 100,
    "17": 20,
}
LINES = 200_000
FAST_SHARE = 0.55
# Memory of one notebook: the libraries, then what a line of receipts takes at the peak.
LIBRARIES = 0.6 * GIB
BYTES_PER_LINE = 900


def estimate(
    dataset: str, tasks: list[Task], fast: bool, jobs: int
) -> tuple[pd.DataFrame, list[str]]:
    """Seconds and peak memory by notebook; the whole, and which models are left out, in words."""
    data = tables.load(dataset)
    summary = data.manifest["summary"]
    lines = summary["lines"]
    items = len(data.items)
    available = available_memory()
    memory = LIBRARIES + BYTES_PER_LINE * lines
    ease = EASE().memory(summary["users"], items, lines)
    scale = (FAST_SHARE if fast else 1) * lines / LINES
    seconds = [max(3, scale * SECONDS.get(task.path.stem[:2], 30)) for task in tasks]
    has_ease = [task.path.stem.startswith("05") and ease <= available for task in tasks]
    table = pd.DataFrame(
        {
            "notebook": [task.path.stem for task in tasks],
            "about seconds": [f"{each:,.0f}" for each in seconds],
            "peak GiB": [f"{(memory + ease * extra) / GIB:.1f}" for extra in has_ease],
        }
    )
    minutes = max(1, round(sum(seconds) / jobs / 60))
    sentences = [
        f"{data.spec.title}: {counted(lines, 'line')}, {counted(summary['users'], 'shopper')},"
        f" {counted(items, 'item')}.",
        f"A run takes about {counted(minutes, 'minute')} with {counted(jobs, 'notebook')}"
        " at the same time: a rough estimate, from the number of lines.",
    ]
    if ease > available:
        sentences.append(
            f"EASE is left out: it needs {ease / GIB:.1f} GiB for {counted(items, 'item')},"
            f" and {available / GIB:.1f} GiB are free."
        )
    if jobs * memory > available:
        sentences.append(
            f"{jobs} notebooks at the same time may need {jobs * memory / GIB:.1f} GiB, and"
            f" {available / GIB:.1f} GiB are free: add --jobs 1."
        )
    return table, sentences


def counted(n: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "shopper"), counted(1200, "item")
    ('1 shopper', '1,200 items')
    """
    return f"{n:,} {noun}{'s' * (n != 1)}"
