"""What a run will cost on this shop: seconds and memory by notebook, before anything runs."""

import pandas as pd

from recsys_utils.data import tables
from recsys_utils.models.costs import GIB, available_memory
from recsys_utils.models.factorization import EASE
from recsys_utils.pipeline.plan import Task

# Seconds of each notebook on the synthetic shop's 200,000 lines, on one core of 2.5 GHz; they grow
# with the lines, and those of the network models a little less.
SECONDS = {
    "01": 5,
    "02": 5,
    "03": 4,
    "04": 10,
    "05": 20,
    "06": 22,
    "07": 17,
    "08": 55,
    "09": 105,
    "10": 160,
    "11": 17,
    "12": 130,
    "13": 18,
    "14": 90,
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
    lines, items = summary["lines"], len(data.items)
    rows = []
    memory = LIBRARIES + BYTES_PER_LINE * lines
    ease = EASE().memory(summary["users"], items, lines)
    for task in tasks:
        seconds = SECONDS.get(task.path.stem[:2], 30) * lines / LINES
        peak = memory
        if task.path.stem.startswith("05") and ease <= available_memory():
            peak += ease
        share = FAST_SHARE if fast else 1
        rows.append(
            {
                "notebook": task.path.stem,
                "about seconds": f"{max(3, share * seconds):,.0f}",
                "peak GiB": f"{peak / GIB:.1f}",
            }
        )
    total = sum(float(row["about seconds"].replace(",", "")) for row in rows) / jobs
    minutes = max(1, round(total / 60))
    sentences = [
        f"{data.spec.title}: {lines:,} lines, {summary['users']:,} shoppers, {items:,} items.",
        f"A run takes about {minutes:,} minute{'s' if minutes > 1 else ''} with {jobs} notebooks"
        " at the same time: a rough estimate, from the number of lines.",
    ]
    available = available_memory()
    if ease > available:
        sentences.append(
            f"EASE is left out: it needs {ease / GIB:.1f} GiB for {items:,} items,"
            f" and {available / GIB:.1f} GiB are free."
        )
    if jobs * memory > available:
        sentences.append(
            f"{jobs} notebooks at the same time may need {jobs * memory / GIB:.1f} GiB, and"
            f" {available / GIB:.1f} GiB are free: add --jobs 1."
        )
    return pd.DataFrame(rows), sentences
