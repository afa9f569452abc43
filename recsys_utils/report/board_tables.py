"""The page's tables of models: leaderboards by scope, earlier windows, how each model was run."""

import pandas as pd

from recsys_utils.data.runs import seed_spreads
from recsys_utils.evaluation.leaderboard import KS, best_first
from recsys_utils.evaluation.significance import letters
from recsys_utils.evaluation.slices import STRATA
from recsys_utils.report.figures import SMALLEST_GROUP
from recsys_utils.report.judged import Judged
from recsys_utils.report.wording import LABELS, display_name

# Columns after the two precisions.
METRICS = (
    "recall",
    "ndcg",
    "map",
    "hit_rate",
    "revenue_share",
    "coverage",
    "novelty",
    "mean_price",
)
COSTS = {"fit_seconds": "Fit,\u00a0s", "recommend_seconds": "Recom\u00admend,\u00a0s"}
SPREAD = "seed_spread"  # of Precision@5 on validation, next to Precision@5
HEADS = LABELS | COSTS | {"novelty": "Novelty, bits", SPREAD: "Seed spread"}
NEITHER_END_IS_BEST = ("mean_price", SPREAD)


def board_tables(judged: Judged) -> list[dict]:
    """All leaderboards of the page: warm shoppers by scope and k; cold ones if there are ten.

    The strata of popularity have a figure instead.
    """
    tables = [board_table(judged, scope, k) for scope, k in judged.values if scope not in STRATA]
    if len(judged.groups["cold"]) >= SMALLEST_GROUP:
        tables += [board_table(judged, "any", k, "cold") for k in KS]
    return tables


def board_table(judged: Judged, scope: str, k: int, users: str = "warm") -> dict:
    """One leaderboard: its columns, and a row per model, best first.

    Returns scope, who, k, users (their number), columns and rows. A column has its metric and
    head. A row has name, family, folded (a better model of its family is above), letter, low and
    high (the interval of its precision), beats (letters) and cells: (value, whether it is the best
    of its column).
    """
    ranking = letters(judged.precision(scope, k, users))
    frame = _numbers(judged, scope, k, users).loc[ranking.index]
    is_best = frame.eq(_best_values(frame), axis="columns")
    intervals = best_first(judged.board, "precision", k, scope, users).set_index("model")
    families = judged.metas["family"].reindex(ranking.index)
    is_folded = families.duplicated()
    rows = []
    for model in ranking.index:
        beats = ranking["beats"][model].split()
        rows.append(
            {
                "name": display_name(model),
                "family": families[model],
                "folded": bool(is_folded[model]),
                "letter": ranking["letter"][model],
                "low": intervals["lo"][model],
                "high": intervals["hi"][model],
                "beats": letter_ranges(beats, list(ranking["letter"])),
                "cells": list(zip(frame.loc[model], is_best.loc[model])),
            }
        )
    return {
        "scope": scope if users == "warm" else "cold users",
        "who": users,
        "k": k,
        "users": int(intervals["users"].iloc[0]),
        "columns": [{"metric": metric, "head": _head(metric, k)} for metric, k in frame],
        "rows": rows,
    }


def letter_ranges(letters: list[str], order: list[str]) -> str:
    """Letters with neighbours drawn together.

    >>> letter_ranges(["c", "d", "e", "g"], list("abcdefgh"))
    'c–e g'
    """
    runs = []
    for place in sorted(order.index(letter) for letter in letters):
        if runs and runs[-1][-1] == place - 1:
            runs[-1].append(place)
        else:
            runs.append([place])
    texts = []
    for run in runs:
        if len(run) > 2:
            texts.append(f"{order[run[0]]}–{order[run[-1]]}")
        else:
            texts.extend(order[place] for place in run)
    return " ".join(texts)


def earlier_windows(judged: list[Judged]) -> dict:
    """Precision@5 of every model in every fold, newest fold first."""
    columns = []
    for fold in judged:
        values = best_first(fold.board).set_index("model")["value"]
        columns.append(values.rename(fold.fold.name))
    table = pd.concat(columns, axis=1)
    rows = [(display_name(model), list(values)) for model, values in table.iterrows()]
    return {"folds": list(table), "rows": rows}


def run_rows(judged: Judged) -> list[dict]:
    """What each run's file says of it, best model first."""
    rows = judged.metas.loc[list(judged.families)].reset_index().to_dict("records")
    return [row | {"name": display_name(row["model"])} for row in rows]


def _numbers(judged: Judged, scope: str, k: int, users: str) -> pd.DataFrame:
    """Models × (metric, k): both precisions, the metrics at k, the costs."""
    board = judged.board
    rows = board[(board["scope"] == scope) & (board["users_scope"] == users)]
    wide = rows.pivot(index="model", columns=["metric", "k"], values="value")
    other_k = next(other for other in KS if other != k)
    keys = [("precision", k), ("precision", other_k), *((metric, k) for metric in METRICS)]
    frame = wide[[key for key in keys if key in wide]].copy()
    if (scope, k, users) == ("any", 5, "warm"):
        frame.insert(1, (SPREAD, 0), seed_spreads(judged.metas))
    for cost in COSTS:
        frame[cost, 0] = judged.metas[cost]
    return frame


def _best_values(frame: pd.DataFrame) -> pd.Series:
    """The best value of each column; NaN where neither end is better."""
    best = frame.max()
    for column in frame:
        if column[0] in COSTS:
            best[column] = frame[column].min()
        elif column[0] in NEITHER_END_IS_BEST:
            best[column] = float("nan")
    return best


def _head(metric: str, k: int) -> str:
    return f"{HEADS[metric]}@{k}" if metric == "precision" else HEADS[metric]
