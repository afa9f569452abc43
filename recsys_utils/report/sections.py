"""The report's sections on what notebooks found beside their lists: candidate recall, ablations, knob costs, calibration."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from tqdm import tqdm

from recsys_utils import LabError
from recsys_utils.data.folds import Stage
from recsys_utils.data.interactions import distinct
from recsys_utils.ensembles.business_rules import Facts, rerank
from recsys_utils.ensembles.hybrid import Hybrid
from recsys_utils.ensembles.rule_settings import tuned
from recsys_utils.evaluation.calibration import calibration_error
from recsys_utils.evaluation.leaderboard import scopes, warm
from recsys_utils.evaluation.metrics import per_user, whole
from recsys_utils.report import figures, study_figures
from recsys_utils.report.figures import display_name, percent

Study = tuple[pd.DataFrame, str]
COLUMNS = {
    "candidate_recall": ("generator", "n", "recall"),
    "two_stage_ablation": ("kind", "without", "change", "low", "high"),
    "knob_costs": ("knob", "value", "precision"),
    "reliability": ("confidence", "bought", "n"),
}
KINDS = {
    "features": "Without a group of features, 95 % interval",
    "generators": "Without a generator of candidates, 95 % interval",
    "ranker": "With another ranker, 95 % interval",
}
LINES = 5


def sections(studies: dict[str, Study]) -> dict[str, dict]:
    """By section its figures (SVG, caption) and notes: `two_stage` and `knobs`, each only where a notebook left its study."""
    for name, wanted in COLUMNS.items():
        if name in studies and (missing := [c for c in wanted if c not in studies[name][0]]):
            raise LabError(
                f"the study '{name}' lacks the column {missing[0]}: it needs {', '.join(wanted)}"
            )
    made = {
        "two_stage": {"candidate_recall": _recall, "two_stage_ablation": _ablation},
        "knobs": {"knob_costs": _knobs, "reliability": _reliability},
    }
    there = {name for name, (table, _) in studies.items() if len(table)}
    return {
        section: {
            "figures": [
                figure
                for name in draws
                if name in there
                for figure in draws[name](studies[name][0])
            ],
            "notes": [studies[name][1] for name in draws if name in there and studies[name][1]],
        }
        for section, draws in made.items()
        if there & set(draws)
    }


def _recall(table: pd.DataFrame) -> list[tuple[str, str]]:
    """Recall by number of candidates: the union of all generators, then the best of them."""
    last = table[table["n"] == table["n"].max()].sort_values("recall", ascending=False)["generator"]
    order = {name: n for n, name in enumerate(["union", *last[last != "union"][:LINES]])}
    shown = table[table["generator"].isin(order)].sort_values(
        "generator", key=lambda names: names.map(order), kind="stable"
    )
    shown = shown.rename(columns={"n": "Candidates per shopper and generator", "recall": "Recall"})
    return [
        figures.figure(
            "Purchases among the candidates",
            figures.curve,
            shown,
            "Candidates per shopper and generator",
            "Recall",
            "generator",
        )
    ]


def _ablation(table: pd.DataFrame) -> list[tuple[str, str]]:
    """One figure per kind of part, the dearest first. What was taken away shares one scale; other rankers may be far worse and have their own."""
    table = table.assign(
        without=table["without"].where(
            table["kind"] != "generators", table["without"].map(display_name)
        )
    )
    made, other = [], table["kind"] == "ranker"
    for kind, title in KINDS.items():
        rows = table[table["kind"] == kind].sort_values("change", kind="stable")
        reach = 1.1 * np.nanmax(
            np.abs(
                table.loc[other == (kind == "ranker"), ["change", "low", "high"]].to_numpy(float)
            ),
            initial=0,
        )
        made += (
            [
                figures.figure(
                    title, study_figures.change, rows, "without", "Change of Precision@5", reach
                )
            ]
            if len(rows)
            else []
        )
    return made


def _knobs(table: pd.DataFrame) -> list[tuple[str, str]]:
    """One figure per knob, all on one scale: a knob that does nothing is to look like it."""
    groups = [(str(name), rows) for name, rows in table.groupby("knob", sort=False)]
    changes = np.concatenate(
        [study_figures.knob_changes(rows).to_numpy().ravel() for _, rows in groups]
        + [[-0.02, 0.02]]
    )
    room = 0.06 * np.ptp(changes)
    limits = changes.min() - room, changes.max() + room
    return [figures.figure(name, _limited, rows, limits) for name, rows in groups]


def _limited(rows: pd.DataFrame, limits: tuple[float, float]) -> Axes:
    ax = study_figures.knob(rows)
    ax.set_ylim(*limits)
    return ax


def _reliability(table: pd.DataFrame) -> list[tuple[str, str]]:
    error = calibration_error(table)
    return [
        figures.figure(
            f"Confidence against what was bought: off by {percent(error)} on average",
            study_figures.reliability,
            table,
        )
    ]


def knob_costs(
    model: Hybrid, off: dict, knobs: Mapping[str, Mapping[str, dict]], stage: Stage, k: int = 5
) -> pd.DataFrame:
    """What a fitted model's lists are worth under each value of each knob, judged on a stage's warm users.

    off: the tuning without any rule. knobs: by name of a knob and label of a value, the sections of the tuning that change.
    Returns knob, value, precision and, where there are prices, revenue_share and mean_price.
    """
    truth, rows = warm(stage.truth, stage.history), []
    users = distinct(truth["user_id"])
    for name, values in tqdm(knobs.items(), desc="knobs", leave=False, disable=None):
        for label, change in values.items():
            recs = model.retuned(off | change).recommend(users, k, stage.exclude)
            mean = per_user(recs, truth, k).mean()
            price = whole(recs, stage.history, k).get("mean_price")
            rows.append(
                {
                    "knob": name,
                    "value": label,
                    **mean.reindex(["precision", "revenue_share"]),
                    "mean_price": price,
                }
            )
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def hidden(rules: Mapping[str, dict], stage: Stage) -> pd.DataFrame:
    """Share of what warm users then bought that each tuning's rules would not have shown, by scope: rules × any, repeat, new."""
    facts, truths = Facts.of(stage.history), scopes(warm(stage.truth, stage.history), stage.history)
    pairs = {
        scope: truths[scope].drop_duplicates(["user_id", "item_id"]).assign(score=0.5)
        for scope in ("any", "repeat", "new")
        if scope in truths
    }
    return pd.DataFrame(
        {
            name: {
                scope: 1 - len(rerank(rows, facts, tuned(rule))) / len(rows)
                for scope, rows in pairs.items()
            }
            for name, rule in rules.items()
        }
    ).T
