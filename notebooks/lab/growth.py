"""What each step costs as a shop grows, from the table that `benchmarks/scale.py` makes."""

import os
import re
from pathlib import Path

import pandas as pd

from recsys_utils import LabError, scalable
from recsys_utils.store import ROOT

SCALE = ROOT / "benchmarks" / "scale.csv"
COLUMN = re.compile(r"(seconds|peak GiB), ([\d.]+) M")
NAMES = {
    "aggregates": "aggregates of the features",
    "OwnPurchases": "own purchases",
    "ItemCF": "BM25 item neighbours",
    "CoPurchase": "co-purchase",
    "TIFUKNN": "TIFU-KNN",
    "UPCF": "UP-CF",
    "TwoStage": "two-stage model",
}
HOUR = 3600


def measured(path: Path = SCALE) -> pd.DataFrame:
    """A row for each step and size: step, lines (million), seconds, gib (peak).

    Steps that were left out at a size for want of memory have no row there.
    """
    if not path.is_file():
        raise LabError(f"{path} is missing: `python benchmarks/scale.py 1 4 16` makes it")
    table = pd.read_csv(path).set_index("step").rename(index=NAMES)
    found = {column: COLUMN.fullmatch(column) for column in table}
    sizes = sorted({float(match[2]) for match in found.values() if match})
    rows = []
    for step, values in table.iterrows():
        for size in sizes:
            seconds = values[f"seconds, {size:g} M"]
            gib = values[f"peak GiB, {size:g} M"]
            if pd.notna(seconds):
                rows.append({"step": step, "lines": size, "seconds": seconds, "gib": gib})
    return pd.DataFrame(rows)


def exponents(path: Path = SCALE) -> pd.DataFrame:
    """By step: the exponent of the seconds over the lines, with its 95 % interval low and high."""
    table = pd.read_csv(path).set_index("step").rename(index=NAMES)
    return table[["exponent", "low", "high"]]


def unit_costs(table: pd.DataFrame) -> pd.DataFrame:
    """Seconds and GiB that a million lines more cost, by step.

    From the two largest sizes at which the step was measured; GiB beyond what the process has
    anyway.
    """
    rows = {}
    for step, sizes in table.groupby("step", sort=False):
        before, last = sizes.sort_values("lines").iloc[-2:].to_dict("records")
        more = last["lines"] - before["lines"]
        rows[step] = {
            "largest": last["lines"],
            "seconds a million": (last["seconds"] - before["seconds"]) / more,
            "GiB a million": (last["gib"] - before["gib"]) / more,
        }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis("step")


def largest_shop(table: pd.DataFrame, gib: float = 16) -> pd.Series:
    """By step: million lines at which its peak memory reaches `gib`, the smallest first.

    A straight line through the two largest sizes. What was left out at the largest size of all was
    too large there: it has the largest at which it ran.
    """
    units = unit_costs(table)
    last = table.groupby("step").last().loc[units.index]
    result = last["lines"] + (gib - last["gib"]) / units["GiB a million"]
    is_left_out = last["lines"] < table["lines"].max()
    result = result.where(~is_left_out, last["lines"])
    return result.sort_values().rename(f"million lines in {gib:g} GiB")


def forecast(table: pd.DataFrame, growth: pd.DataFrame, lines: list[float]) -> pd.DataFrame:
    """Hours of one core by step at sizes nobody measured, with what the exponent's interval allows.

    lines: in millions. growth: of `exponents`. From the seconds of the largest size measured.
    Returns a column of text for each size: hours (low to high).
    """
    last = table.groupby("step", sort=False).last()
    growth = growth.loc[last.index]
    result = pd.DataFrame(index=last.index)
    for size in lines:
        times = size / last["lines"]
        hours, low, high = (
            (last["seconds"] / HOUR * times ** growth[name]).map("{:.2g}".format)
            for name in ("exponent", "low", "high")
        )
        result[f"{size:g} M"] = hours + " (" + low + " to " + high + ")"
    return result


def on_engines(dataset: str, engines: list[str], models: list[str]) -> tuple[pd.DataFrame, str]:
    """The leaderboards that engines make of the same fold, and why one has none, "" if all have.

    A row per engine and model, without seconds.
    """
    before = os.environ.get("RECSYS_ENGINE")
    boards = {}
    reason = ""
    try:
        for name in engines:
            os.environ["RECSYS_ENGINE"] = name
            boards[name] = scalable.run(dataset, models, 10).drop(columns="seconds")
    except LabError as error:
        reason = str(error)
    finally:
        os.environ.pop("RECSYS_ENGINE", None)
        if before is not None:
            os.environ["RECSYS_ENGINE"] = before
    if not boards:
        return pd.DataFrame(), reason
    return pd.concat(boards, names=["engine"]).droplevel(1), reason


def are_equal(boards: pd.DataFrame) -> bool:
    """Whether all engines' leaderboards are equal to the last digit."""
    every = [board.reset_index(drop=True) for _, board in boards.groupby(level="engine")]
    return all(board.equals(every[0]) for board in every)
