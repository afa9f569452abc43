"""The report room: one self-contained page per data set that says what to ship, what it is worth, and shows why."""

import subprocess
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path

import numpy as np
import pandas as pd

from recsys_utils import LabError
from recsys_utils.data import folds, tables
from recsys_utils.data.folds import Fold
from recsys_utils.data.registry import Spec
from recsys_utils.data.runs import load_runs, load_studies
from recsys_utils.evaluation import leaderboard
from recsys_utils.evaluation.metrics import per_user
from recsys_utils.report import figures, sections
from recsys_utils.report.explorer import explorer
from recsys_utils.report.figures import display_name, num, percent, pick, seconds
from recsys_utils.report.html import (
    code_template_dir,
    notebook_links,
    render,
    to_html,
    write,
    write_index,
)
from recsys_utils.store import atomic, data_dir, home, read_json, report_dir

__all__ = ["code_template_dir", "ship", "to_html", "write_report"]
# Metrics in the order of their columns, and which end is best: 1 the highest, 0 neither.
COLUMNS = (
    ("precision", 1),
    ("recall", 1),
    ("ndcg", 1),
    ("map", 1),
    ("hit_rate", 1),
    ("revenue_share", 1),
    ("coverage", 1),
    ("novelty", 1),
    ("mean_price", 0),
)
TOP = 8  # models in figures that would not hold all
BEST = 15  # models in leaderboard.png, and the best popularity
DEPTHS = (5, 10, 20, 50, 100, 200)


@dataclass
class Judged:
    """A fold, its runs, and everything that the judge says of them."""

    fold: Fold
    runs: dict[str, pd.DataFrame]
    metas: pd.DataFrame
    catalogue: pd.Index | None

    @cached_property
    def board(self) -> pd.DataFrame:
        """The tidy leaderboard."""
        return leaderboard.leaderboard(
            self.runs, self.metas, self.fold, self.catalogue, self.values
        )

    @cached_property
    def values(self) -> dict[tuple[str, int], dict[str, pd.DataFrame]]:
        """Per-user values of everyone in the test window."""
        return leaderboard.values(self.runs, self.fold.testing, self.catalogue)

    @cached_property
    def groups(self) -> dict[str, pd.Index]:
        """Users by name of group; a fold without warm or cold users has an empty group of that name."""
        none = pd.Index([], dtype=object)
        return {"warm": none, "cold": none} | leaderboard.user_groups(
            self.fold.testing, self.catalogue
        )

    @property
    def families(self) -> dict[str, str]:
        """Family by model, best model first."""
        return pick(self.board).set_index("model")["family"].to_dict()

    def precision(self, scope: str = "any", k: int = 5, users: str = "warm") -> pd.DataFrame:
        """Users of a group × models."""
        return pd.DataFrame(
            {
                m: v.loc[v.index.isin(self.groups[users]), "precision"]
                for m, v in self.values[scope, k].items()
            }
        )


def write_report(dataset: str, judged: list["Judged"] | None = None) -> Path:
    """Write `reports/<dataset>/leaderboard.csv` and `index.html`, then `reports/index.html`; return the page's path.

    judged: what `judge_folds` gave, where it is at hand already.
    """
    data, judged = tables.load(dataset), judged or judge_folds(dataset)
    folder = report_dir(data.spec.name)
    with atomic(folder / "leaderboard.csv") as temporary:
        pd.concat([j.board for j in judged]).to_csv(temporary, index=False, float_format="%.6g")
    with atomic(folder / "leaderboard.png") as temporary:
        board, best = judged[0].board, pick(judged[0].board)["model"]
        figure = figures.leaderboard_bars(
            board[board["model"].isin([*best[:BEST], _first(board, "popularity")])]
        ).figure
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
        figures.plt.close(figure)
    page = render("report.html.j2", **_context(data, judged), notebooks=notebook_links(folder))
    path = write(page, folder / "index.html")
    write_index(home() / "reports")
    return path


def judge_folds(dataset: str) -> list[Judged]:
    """Every fold that has runs, newest first."""
    return [
        judge(fold) for n, fold in enumerate(folds.load_folds(dataset)) if n == 0 or _has_runs(fold)
    ]


def judge(fold: Fold) -> Judged:
    """A fold with its runs, and the prefiltered catalogue if one was written."""
    runs, metas = load_runs(fold)
    path = data_dir(tables.spec(fold.dataset).name, "folds", fold.name, "catalogue.parquet")
    judged = Judged(
        fold,
        runs,
        metas,
        pd.Index(pd.read_parquet(path)["item_id"].astype(str)) if path.exists() else None,
    )
    if not len(judged.groups["warm"]):
        raise LabError(
            f"fold {fold.name} has no user with purchases both before and in the test window: nobody to judge models on"
        )
    return judged


def ship(board: pd.DataFrame, precision: pd.DataFrame | None = None, currency: str = "") -> str:
    """Which model to ship, what it is worth, where it is weak: three sentences. `precision`: warm users × models, for the test."""
    return " ".join([_which(board, precision), _worth(board, currency), _weak(board)])


def _which(board: pd.DataFrame, precision: pd.DataFrame | None) -> str:
    rows = pick(board)
    best = rows.iloc[0]
    said = (
        f"Ship {display_name(best['model'])}: {percent(best['value'])} of its five suggestions per shopper were bought in the test window "
        f"(95 % interval {num(100 * best['lo'])} to {percent(best['hi'])})"
    )
    if len(rows) == 1 or precision is None:
        return said + ("; there is no other model to compare it with." if len(rows) == 1 else ".")
    second, p = rows.iloc[1], _against(precision, best["model"])
    rival = f"the runner-up (“{display_name(second['model'])}”, {percent(second['value'])})"
    if p[second["model"]] < 0.05:
        return f"{said}; its lead over {rival} is {'far ' if p[second['model']] < 0.001 else ''}more than chance explains."
    return f"{said}; the test cannot tell it from {rival}, {_cheaper(rows[[p.get(m, 1) >= 0.05 for m in rows['model']]])}."


def _cheaper(ties: pd.DataFrame) -> str:
    """Which of the models that tie costs least; the first row is the best."""
    cost = ties["fit_seconds"] + ties["recommend_seconds"]
    cheap = ties.loc[cost.idxmin()]
    if cost.iloc[0] - cost.min() < 0.1:
        return "and none that ties is noticeably cheaper"
    which = "of the two" if len(ties) == 2 else f"of the {len(ties)} that tie"
    return f"and {which} “{display_name(cheap['model'])}” is the cheapest ({_seconds(cheap)} against {_seconds(ties.iloc[0])})"


def _worth(board: pd.DataFrame, currency: str) -> str:
    best, share = pick(board).iloc[0], pick(board, "revenue_share").set_index("model")["value"]
    if share.empty:
        hit = pick(board, "hit_rate").set_index("model")["value"][best["model"]]
        return f"Without prices its worth in money cannot be computed; {percent(hit)} of shoppers bought at least one of its five suggestions."
    names = [
        m
        for m in (_first(board, "popularity", r"_\d+d"), _first(board, "repeat"))
        if m not in (None, best["model"])
    ]
    against = " and ".join(f"{percent(share[m])} by “{display_name(m)}”" for m in names)
    money = 1000 * pick(board, "revenue").set_index("model")["value"][best["model"]]
    return (
        f"Its five suggestions foresee {percent(share[best['model']])} of what a shopper spends in the window on average"
        f"{f' (against {against})' if against else ''}, or {currency}{num(money)} per 1,000 shoppers, some of which they would spend anyway."
    )


def _first(board: pd.DataFrame, family: str, wanted: str = "") -> str | None:
    """The best model of a family, among those of a wanted name if there are any."""
    names = pick(board)[lambda rows: rows["family"] == family]["model"]
    fitting = names[names.str.contains(wanted)]
    return next(iter([*fitting, *names]), None)


def _weak(board: pd.DataFrame) -> str:
    winner, new, cold = pick(board).iloc[0], pick(board, scope="new"), pick(board, users="cold")
    best, values = winner["model"], new.set_index("model")["value"]
    said = (
        "Nobody bought anything new in the window"
        if new.empty
        else (
            f"It is {'weaker' if values[best] < winner['value'] else 'as good'} on items new to the shopper, where {percent(values[best])} of five suggestions hit"
            + (
                f" (best there: “{display_name(values.index[0])}”, {percent(values.iloc[0])})"
                if values.index[0] != best
                else ""
            )
        )
    )
    if cold.empty:
        return (
            said + "; the window had no cold shoppers (without an earlier purchase) to judge it on."
        )
    row = cold.set_index("model").loc[best]
    return f"{said}, and for the {row['users']:,} cold shoppers (without an earlier purchase), where {percent(row['value'])} do."


def _against(precision: pd.DataFrame, best: str) -> dict[str, float]:
    """Holm-corrected p of the best model against every other."""
    tests = leaderboard.paired(precision)
    tests = tests[(tests["model_a"] == best) | (tests["model_b"] == best)]
    return dict(
        zip(np.where(tests["model_a"] == best, tests["model_b"], tests["model_a"]), tests["p_holm"])
    )


def _seconds(row: pd.Series) -> str:
    return f"{seconds(row['fit_seconds'] + row['recommend_seconds'])}\u00a0s"


def _context(data: tables.Tables, judged: list[Judged]) -> dict:
    """Everything that the page shows."""
    newest, spec = judged[0], data.spec
    verdict = [
        _which(newest.board, newest.precision()),
        _worth(newest.board, spec.currency),
        _weak(newest.board),
    ]
    audit = data.audit.astype(object).where(data.audit.notna(), None).to_dict("records")
    return {
        "spec": spec,
        "verdict": verdict,
        "tiles": _tiles(newest.board, spec),
        "leagues": leagues(newest),
        "labels": figures.LABELS,
        "palette": {f: figures.colour(f) for f in newest.families.values()},
        "figures": section_figures(newest),
        "findings": sections.sections(load_studies(newest.fold)),
        "explorer": explorer(
            newest.fold, newest.runs, newest.families, newest.groups, spec.currency
        ),
        "fold": newest.fold,
        "parts": folds.describe(newest.fold),
        "groups": newest.groups,
        "summary": data.manifest["summary"],
        "audit": audit,
        "manifest": data.manifest,
        "left_out": _left_out(newest),
        "rolling": _rolling(judged),
        "metas": _metas(newest),
        "versions": newest.metas["versions"].iloc[0],
        "commit": _commit(),
    }


def _tiles(board: pd.DataFrame, spec: Spec) -> list[tuple[str, str]]:
    """The winner's numbers at a glance."""
    best = pick(board).iloc[0]
    value = {
        m: pick(board, m).set_index("model")["value"].get(best["model"])
        for m in ("hit_rate", "revenue_share", "revenue", "coverage")
    }
    made = [
        ("Precision@5", num(best["value"])),
        ("shoppers with a hit", percent(value["hit_rate"])),
    ]
    if value["revenue"] is not None:
        made += [
            ("of spending foreseen", percent(value["revenue_share"])),
            ("foreseen per 1,000 shoppers", f"{spec.currency}{num(1000 * value['revenue'])}"),
        ]
    return [
        *made,
        ("of the catalogue shown", percent(value["coverage"])),
        ("to fit and recommend", _seconds(best)),
    ]


def leagues(judged: Judged) -> list[dict]:
    """The page's leaderboards: warm shoppers by scope, and cold shoppers where there are enough to say anything."""
    cold = [
        (scope, k, "cold")
        for scope, k in judged.values
        if scope == "any" and len(judged.groups["cold"]) >= figures.GROUP
    ]
    return [league(judged, *key) for key in [*judged.values, *cold]]


def league(judged: Judged, scope: str, k: int, users: str = "warm") -> dict:
    """One leaderboard: its columns, and a row of cells per model, best first."""
    board, rank = judged.board, leaderboard.letters(judged.precision(scope, k, users))
    rows = board[(board["scope"] == scope) & (board["users_scope"] == users)]
    wide = rows.pivot(index="model", columns=["metric", "k"], values="value").loc[rank.index]
    keys = [
        ("precision", k),
        ("precision", next(other for other in leaderboard.KS if other != k)),
    ] + [(m, k) for m, _ in COLUMNS[1:]]
    frame = wide[[key for key in keys if key in wide]]
    cost = judged.metas.loc[rank.index, ["fit_seconds", "recommend_seconds"]].set_axis(
        [("fit", 0), ("recommend", 0)], axis=1
    )
    frame, ends = pd.concat([frame.T, cost.T]).T, dict(COLUMNS) | {"fit": -1, "recommend": -1}
    best = {
        key: (frame[key].max() if ends[key[0]] > 0 else frame[key].min()) if ends[key[0]] else None
        for key in frame
    }
    spans = pick(board, "precision", k, scope, users).set_index("model")
    made = [
        {
            "name": display_name(m),
            "family": judged.metas["family"][m],
            "letter": rank["letter"][m],
            "low": spans["lo"][m],
            "high": spans["hi"][m],
            "beats": _ranges(rank["beats"][m].split(), list(rank["letter"])),
            "cells": [(v, v == best[c]) for c, v in frame.loc[m].items()],
        }
        for m in rank.index
    ]
    return {
        "scope": scope if users == "warm" else "cold users",
        "who": users,
        "k": k,
        "users": int(spans["users"].iloc[0]),
        "columns": list(frame),
        "rows": made,
    }


def _ranges(letters: list[str], order: list[str]) -> str:
    """Letters with neighbours drawn together: "c–f h"."""
    at = sorted(order.index(letter) for letter in letters)
    spans = [
        [i for _, i in group] for _, group in groupby(enumerate(at), lambda pair: pair[1] - pair[0])
    ]
    return " ".join(
        order[s[0]] if len(s) == 1 else f"{order[s[0]]}{'–' if len(s) > 2 else ' '}{order[s[-1]]}"
        for s in spans
    )


def section_figures(judged: Judged) -> dict[str, list[tuple[str, str]]]:
    """The page's figures by section, each as SVG and caption; a section that the data cannot fill is empty."""
    board, several = judged.board, len(judged.runs) > 1
    xs = {
        "revenue_share": "accuracy against revenue",
        "coverage": "accuracy against coverage",
        "seconds": "accuracy against cost",
    }
    prefixes = {
        "history: ": "By baskets before the test window",
        "segment: ": "By segment",
        "country: ": "By country",
    }
    made = {
        "bars": [
            figures.figure("Precision@5, warm shoppers", figures.leaderboard_bars, board),
            _reach(judged),
        ],
        "tradeoffs": [],
        "overlap": [],
        "groups": [
            figures.figure(f"{title} (shoppers)", figures.by_group, board, prefix)
            for prefix, title in prefixes.items()
            if figures.groups_of(board, prefix)
        ],
        "repeat": [
            figures.figure(
                "Precision@5 where only repeats, or only new items, count",
                figures.repeat_vs_new,
                board,
            )
        ]
        if {"repeat", "new"} <= set(board["scope"])
        else [],
    }
    if several:
        made["tradeoffs"] = [
            figures.figure(title.capitalize(), figures.tradeoff, board, x)
            for x, title in xs.items()
            if x == "seconds" or len(pick(board, x))
        ]
        made["overlap"] = _overlaps(judged)
    return made


def _reach(judged: Judged) -> tuple[str, str]:
    """Recall of ever longer lists, for the best model of each family: what a ranker behind it could find at most."""
    truth, best = (
        leaderboard.warm(judged.fold.testing.truth, judged.fold.testing.history),
        pick(judged.board).drop_duplicates("family").head(5),
    )
    rows = [
        {
            "model": m,
            "family": f,
            "Length of the list": k,
            "Recall": per_user(judged.runs[m], truth, k)["recall"].mean(),
        }
        for m, f in zip(best["model"], best["family"])
        for k in DEPTHS
    ]
    return figures.figure(
        "Purchases within longer lists",
        figures.curve,
        pd.DataFrame(rows),
        "Length of the list",
        "Recall",
        "model",
    )


def _overlaps(judged: Judged) -> list[tuple[str, str]]:
    """How alike the best models' lists are, and what an oracle that picks the better of two would gain."""
    best = list(judged.families)[:TOP]
    every = judged.values["any", 5]
    values = {m: every[m][every[m].index.isin(judged.groups["warm"])] for m in best}
    alone = np.array([v["hit_rate"].mean() for v in values.values()])
    gain = leaderboard.ensemble_gain(values) - np.maximum.outer(alone, alone)
    return [
        figures.figure(
            "First ten items in common, percent",
            figures.heatmap,
            leaderboard.overlap({m: judged.runs[m] for m in best}),
        ),
        figures.figure("Hit rate@5 that an oracle would add, points", figures.heatmap, gain),
    ]


def _left_out(judged: Judged) -> list[str]:
    """What this data set or run cannot show."""
    fold = judged.fold
    gaps = {
        "prices, revenue and anything in money (the receipts have no prices)": "price"
        not in fold.train,
        "product names (ids stand in for them)": "name" not in fold.items,
        "results by segment or country (users have neither)": not {"segment", "country"}
        & set(fold.users),
        "cold shoppers (the window has none)": not len(judged.groups["cold"]),
        "the prefiltered catalogue (notebook 02 has not written it)": judged.catalogue is None,
        "views and carts (the shop keeps receipts only: purchases are the online models' events)": fold.events
        is None,
        "comparisons between models (there is only one)": len(judged.runs) == 1,
    }
    return [what for what, missing in gaps.items() if missing]


def _rolling(judged: list[Judged]) -> dict:
    """Precision@5 of every model in every fold, newest first."""
    found = [pick(j.board).set_index("model")["value"].rename(j.fold.name) for j in judged]
    table = pd.concat(found, axis=1)
    return {
        "folds": list(table),
        "rows": [(display_name(m), list(row)) for m, row in zip(table.index, table.to_numpy())],
    }


def _metas(judged: Judged) -> list[dict]:
    """What each run's file says of it, best model first."""
    metas = judged.metas.loc[list(judged.families)]
    return [
        {**row, "name": display_name(row["model"])}
        for row in metas.reset_index().to_dict("records")
    ]


def _has_runs(fold: Fold) -> bool:
    folder = data_dir(tables.spec(fold.dataset).name, "runs", fold.name)
    return any(read_json(path)["fold_hash"] == fold.hash for path in folder.glob("*.json"))


def _commit() -> str:
    """The code's git commit; '' outside a repository."""
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    done = subprocess.run(git, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""
