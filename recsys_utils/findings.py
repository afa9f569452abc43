"""The report's sections on what notebooks found beside their lists: candidate recall, ablations, knob costs, calibration."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from . import LabError, plots, plots_studies
from .confidence import calibration_error
from .plots import display_name, percent, svg

Study = tuple[pd.DataFrame, str]
COLUMNS = {"candidate_recall": ("generator", "n", "recall"), "two_stage_ablation": ("kind", "without", "change", "low", "high"),
           "knob_costs": ("knob", "value", "precision"), "reliability": ("confidence", "bought", "n")}
KINDS = {"features": "Without a group of features, 95 % interval", "generators": "Without a generator of candidates, 95 % interval",
         "ranker": "With another ranker, 95 % interval"}
LINES = 5


def sections(studies: dict[str, Study]) -> dict[str, dict]:
    """By section its figures (SVG, caption) and notes: `two_stage` and `knobs`, each only where a notebook left its study."""
    for name, wanted in COLUMNS.items():
        if name in studies and (missing := [c for c in wanted if c not in studies[name][0]]):
            raise LabError(f"the study '{name}' lacks the column {missing[0]}: it needs {', '.join(wanted)}")
    made = {"two_stage": {"candidate_recall": _recall, "two_stage_ablation": _ablation}, "knobs": {"knob_costs": _knobs, "reliability": _reliability}}
    there = {name for name, (table, _) in studies.items() if len(table)}
    return {section: {"figures": [figure for name in draws if name in there for figure in draws[name](studies[name][0])],
                      "notes": [studies[name][1] for name in draws if name in there and studies[name][1]]}
            for section, draws in made.items() if there & set(draws)}


def _recall(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Recall by number of candidates: the union of all generators, then the best of them."""
    last = table[table["n"] == table["n"].max()].sort_values("recall", ascending=False)["generator"]
    order = {name: n for n, name in enumerate(["union", *last[last != "union"][:LINES]])}
    shown = table[table["generator"].isin(order)].sort_values("generator", key=lambda names: names.map(order), kind="stable")
    shown = shown.rename(columns={"n": "Candidates per shopper and generator", "recall": "Recall"})
    return [_figure("Purchases among the candidates", plots.curve, shown, "Candidates per shopper and generator", "Recall", "generator")]


def _ablation(table: pd.DataFrame) -> list[tuple[str, str]]:
    """One figure per kind of part, the dearest first, all on one scale."""
    reach, made = 1.1 * np.nanmax(np.abs(table[["change", "low", "high"]].to_numpy(float))), []
    for kind, title in KINDS.items():
        rows = table[table["kind"] == kind].sort_values("change", kind="stable")
        if len(rows):
            rows = rows.assign(without=[display_name(name) if kind == "generators" else name for name in rows["without"]])
            made.append(_figure(title, plots_studies.change, rows, "without", "Change of Precision@5", reach))
    return made


def _knobs(table: pd.DataFrame) -> list[tuple[str, str]]:
    """One figure per knob, all on one scale: a knob that does nothing is to look like it."""
    groups = [(str(name), rows) for name, rows in table.groupby("knob", sort=False)]
    changes = np.concatenate([plots_studies.knob_changes(rows).to_numpy().ravel() for _, rows in groups] + [[-0.02, 0.02]])
    limits = 1.08 * changes.min(), 1.08 * changes.max()
    return [_figure(name, _limited, rows, limits) for name, rows in groups]


def _limited(rows: pd.DataFrame, limits: tuple[float, float]) -> Axes:
    ax = plots_studies.knob(rows)
    ax.set_ylim(*limits)
    return ax


def _reliability(table: pd.DataFrame) -> list[tuple[str, str]]:
    error = calibration_error(table)
    return [_figure(f"Confidence against what was bought: off by {percent(error)} on average", plots_studies.reliability, table)]


def _figure(caption: str, draw: object, *args: object) -> tuple[str, str]:
    return svg(caption, draw, *args), caption
