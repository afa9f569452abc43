"""The page's figures by section: of the leaderboard, and of what notebooks found and saved."""

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from recsys_utils import LabError
from recsys_utils.ensembles.candidates import TOGETHER
from recsys_utils.evaluation.calibration import calibration_error
from recsys_utils.evaluation.leaderboard import best_first, ensemble_gain, overlap
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.evaluation.slices import warm
from recsys_utils.report import figures, study_figures
from recsys_utils.report.judged import Judged
from recsys_utils.report.svg import figure
from recsys_utils.report.wording import display_name, percent

Figure = tuple[str, str]  # SVG, caption
Study = tuple[pd.DataFrame, str]  # a notebook's table, and what it shows

MOST_GENERATORS = 5
LENGTHS = (5, 10, 20, 50, 100, 200)
TRADEOFFS = {
    "revenue_share": "Accuracy against revenue",
    "coverage": "Accuracy against coverage",
    "seconds": "Accuracy against cost",
}
GROUPS = {
    "history: ": "By baskets before the test window (shoppers)",
    "segment: ": "By segment (shoppers)",
    "country: ": "By country (shoppers)",
}
# Columns that the page needs of a study.
STUDY_COLUMNS = {
    "candidate_recall": ("generator", "n", "recall"),
    "two_stage_ablation": ("kind", "without", "change", "low", "high"),
    "knob_costs": ("knob", "value", "precision"),
    "reliability": ("confidence", "bought", "n"),
    "retraining": ("model", "days", "precision", "change", "low", "high"),
}
ABLATIONS = {
    "features": "Without a group of features, 95 % interval",
    "generators": "Without a generator's scores, 95 % interval",
    "ranker": "With another ranker, 95 % interval",
}


def section_figures(judged: Judged, wanted: list[str] = ()) -> dict[str, list[Figure]]:
    """Figures of the leaderboard's sections; a section that the data cannot fill is empty.

    wanted: models that figures of a few show in any case.
    """
    board = figures.few(judged.board, wanted)
    bars = figure("Precision@5, warm shoppers", figures.leaderboard_bars, board)
    sections = {
        "bars": [bars, _longer_lists(judged)],
        "tradeoffs": [],
        "groups": [],
        "repeat": [],
        "popularity": [],
        "overlap": [],
    }
    for prefix, caption in GROUPS.items():
        if figures.groups_of(board, prefix):
            sections["groups"].append(figure(caption, figures.by_group, board, prefix))
    if {"repeat", "new"} <= set(board["scope"]):
        caption = "Precision@5 on repeats and on new items"
        sections["repeat"].append(figure(caption, figures.repeat_vs_new, board))
    if len(figures.strata_of(board)) > 1:
        caption = "Recall@10 by popularity of what was bought (shoppers)"
        sections["popularity"].append(figure(caption, figures.by_popularity, board))
    if len(judged.runs) > 1:
        for x, caption in TRADEOFFS.items():
            if x == "seconds" or len(best_first(board, x)):
                sections["tradeoffs"].append(figure(caption, figures.tradeoff, board, x))
        sections["overlap"] = _overlaps(judged)
    return sections


def study_sections(studies: dict[str, Study]) -> dict[str, dict]:
    """Figures and notes of the sections two_stage, knobs and retraining.

    A section is there where a notebook left its study. studies: tables and notes by name. Raises
    LabError if a table lacks a column.
    """
    for name, wanted in STUDY_COLUMNS.items():
        missing = [c for c in wanted if name in studies and c not in studies[name][0]]
        if missing:
            raise LabError(
                f"the study '{name}' lacks the column {missing[0]}: it needs {', '.join(wanted)}"
            )
    parts = {
        "two_stage": {"candidate_recall": _candidate_recall, "two_stage_ablation": _ablations},
        "knobs": {"knob_costs": _knobs, "reliability": _reliability},
        "retraining": {"retraining": _retraining},
    }
    sections = {}
    for section, draws in parts.items():
        filled = [name for name in draws if name in studies and len(studies[name][0])]
        drawn = []
        for name in filled:
            drawn += draws[name](studies[name][0])
        if filled:
            notes = [studies[name][1] for name in filled if studies[name][1]]
            sections[section] = {"figures": drawn, "notes": notes}
    return sections


def _longer_lists(judged: Judged) -> Figure:
    """Recall of ever longer lists: what a ranker behind the best models could find at most."""
    stage = judged.fold.testing
    truth = warm(stage.truth, stage.history)
    best = best_first(judged.board).drop_duplicates("family").head(figures.MOST_FAMILIES)
    length = "Length of the list"
    rows = []
    for model, family in zip(best["model"], best["family"]):
        for k in LENGTHS:
            recall = per_user(judged.runs[model], truth, k)["recall"].mean()
            rows.append({"model": model, "family": family, length: k, "Recall": recall})
    caption = "Purchases within longer lists"
    return figure(caption, figures.curve, pd.DataFrame(rows), length, "Recall", "model")


def _overlaps(judged: Judged) -> list[Figure]:
    """How alike the best models' lists are, and what picking the better of two would gain."""
    best = list(judged.families)[: figures.MOST_MODELS]
    values = {}
    for model in best:
        every = judged.values["any", 5][model]
        values[model] = every[every.index.isin(judged.groups["warm"])]
    alone = np.array([frame["hit_rate"].mean() for frame in values.values()])
    gain = ensemble_gain(values) - np.maximum.outer(alone, alone)
    common = overlap({model: judged.runs[model] for model in best})
    return [
        figure("First ten items in common, percent", figures.heatmap, common),
        figure("Hit rate@5 that an oracle would add, points", figures.heatmap, gain),
    ]


def _candidate_recall(table: pd.DataFrame) -> list[Figure]:
    """Recall by number of candidates: all generators together, then the best of them."""
    candidates = "Candidates per shopper"
    most = table[table["n"] == table["n"].max()].sort_values("recall", ascending=False)
    best = most.loc[most["generator"] != TOGETHER, "generator"][:MOST_GENERATORS]
    lines = [table[table["generator"] == name] for name in [TOGETHER, *best]]
    lines = pd.concat(lines).rename(columns={"n": candidates, "recall": "Recall"})
    caption = "Purchases among the candidates"
    return [figure(caption, figures.curve, lines, candidates, "Recall", "generator")]


def _ablations(table: pd.DataFrame) -> list[Figure]:
    """One figure per kind of part, the part worth most first.

    What was taken away shares one scale; other rankers may be far worse and have their own.
    """
    numbers = table[["change", "low", "high"]].abs().max(axis=1)
    is_ranker = table["kind"] == "ranker"
    drawn = []
    for kind, caption in ABLATIONS.items():
        rows = table[table["kind"] == kind].sort_values("change", kind="stable")
        if rows.empty:
            continue
        if kind == "generators":
            rows = rows.assign(without=rows["without"].map(display_name))
        reach = 1.1 * numbers[is_ranker == (kind == "ranker")].max()
        label = "Change of Precision@5"
        drawn.append(figure(caption, study_figures.change, rows, label, reach))
    return drawn


def _knobs(table: pd.DataFrame) -> list[Figure]:
    """One figure per knob, all on one scale: a knob that does nothing is to look like it."""
    groups = list(table.groupby("knob", sort=False))
    changes = [study_figures.knob_changes(rows).to_numpy().ravel() for _, rows in groups]
    changes = np.concatenate([*changes, [-0.02, 0.02]])
    room = 0.06 * np.ptp(changes)
    limits = (changes.min() - room, changes.max() + room)

    def draw(rows: pd.DataFrame) -> Axes:
        ax = study_figures.knob(rows)
        ax.set_ylim(*limits)
        return ax

    return [figure(str(name), draw, rows) for name, rows in groups]


def _retraining(table: pd.DataFrame) -> list[Figure]:
    """Precision by age of the model, and the change against a fresh one with its interval."""
    days = "Days since the fit"
    lines = table.rename(columns={"days": days, "precision": "Precision@5"})
    change = table.rename(
        columns={"days": days, "change": "Change of Precision@5", "low": "lo", "high": "hi"}
    )
    return [
        figure("Precision by age", figures.curve, lines, days, "Precision@5", "model"),
        figure(
            "Change against a fresh model, 95 % interval",
            figures.curve,
            change[change["model"] == change["model"].iloc[0]],
            days,
            "Change of Precision@5",
            "model",
        ),
    ]


def _reliability(table: pd.DataFrame) -> list[Figure]:
    error = percent(calibration_error(table))
    caption = f"Confidence against what was bought: off by {error} on average"
    return [figure(caption, study_figures.reliability, table)]
