"""The report of a data set: one self-contained page that says what to ship, and shows why."""

import subprocess
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from recsys_utils.data import folds, tables
from recsys_utils.data.registry import Spec
from recsys_utils.data.runs import failed_notebooks, load_left_out, load_studies
from recsys_utils.report import board_tables, figures
from recsys_utils.report.compared import todays_list
from recsys_utils.report.decision import decide
from recsys_utils.report.explorer import explorer
from recsys_utils.report.html import notebook_links, render, write, write_index
from recsys_utils.report.judged import Judged, judge_folds
from recsys_utils.report.sections import section_figures, study_sections
from recsys_utils.report.style import colour
from recsys_utils.report.verdict import reasons, shipped, windows_before
from recsys_utils.report.wording import display_name
from recsys_utils.store import atomic, home, report_dir


def write_report(dataset: str, judged: list[Judged] | None = None) -> Path:
    """Write a data set's report, and the list of all reports; return the page's path.

    Writes `reports/<dataset>/leaderboard.csv`, `leaderboard.png` and `index.html`, and
    `reports/index.html`.

    judged: what `judge_folds` gave, where it is at hand.
    """
    data = tables.load(dataset)
    judged = judged or judge_folds(dataset)
    folder = report_dir(data.spec.name)
    with atomic(folder / "leaderboard.csv") as temporary:
        table = pd.concat([fold.board for fold in judged])
        table.to_csv(temporary, index=False, float_format="%.6g")
    _write_picture(judged[0], data.spec, folder / "leaderboard.png")
    context = page_context(data, judged)
    page = render("report.html.j2", **context, notebooks=notebook_links(folder))
    path = write(page, folder / "index.html")
    write_index(home() / "reports")
    return path


def page_context(data: tables.Tables, judged: list[Judged]) -> dict:
    """Everything that the page's template shows. judged: folds, newest first."""
    newest = judged[0]
    spec = data.spec
    audit = data.audit.astype(object).where(data.audit.notna(), None)
    decision = decide(newest, spec)
    shown = [model for model in (decision.model, decision.incumbent) if model]
    return {
        "spec": spec,
        "decision": decision,
        "why": _why(judged),
        "boards": board_tables.board_tables(newest),
        "palette": {family: colour(family) for family in newest.families.values()},
        "figures": section_figures(newest, shown),
        "studies": study_sections(load_studies(newest.fold)),
        "explorer": explorer(
            newest.fold, newest.runs, _first(newest.families, shown), newest.groups, spec.currency
        ),
        "side_by_side": len(dict.fromkeys(shown)),
        "fold": newest.fold,
        "parts": folds.describe(newest.fold),
        "groups": newest.groups,
        "summary": data.manifest["summary"],
        "audit": audit.to_dict("records"),
        "manifest": data.manifest,
        "left_out": _left_out(newest),
        "failed": failed_notebooks(spec.name),
        "earlier": board_tables.earlier_windows(judged),
        "runs": board_tables.run_rows(newest),
        "versions": newest.metas["versions"].iloc[0],
        "commit": commit(),
    }


def _write_picture(judged: Judged, spec: Spec, path: Path) -> None:
    """The bars of the models that matter, with what the shop shows today."""
    board = judged.board
    today = todays_list(board, spec.worth.incumbent)
    ax = figures.leaderboard_bars(figures.few(board, [shipped(board, judged.choice), today]))
    with atomic(path) as temporary:
        ax.figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
    plt.close(ax.figure)


def _first(families: dict[str, str], shown: list[str]) -> dict[str, str]:
    """Families by model, with some models first."""
    order = [*shown, *families]
    return {model: families[model] for model in dict.fromkeys(order)}


def _why(judged: list[Judged]) -> list[str]:
    """Why this model, and how well the same rule chose on earlier windows."""
    newest, *earlier = judged
    statements = reasons(newest.board, newest.precision(), newest.choice)
    before = windows_before([fold.board for fold in earlier], [fold.choice for fold in earlier])
    return [*statements, before] if before else statements


def _left_out(judged: Judged) -> list[str]:
    """What this data set or run cannot show."""
    fold = judged.fold
    gaps = []
    if "price" not in fold.train:
        gaps.append("prices, revenue and anything in money (the receipts have no prices)")
    if "name" not in fold.items:
        gaps.append("product names (ids stand in for them)")
    if not {"segment", "country"} & set(fold.users):
        gaps.append("results by segment or country (users have neither)")
    if judged.groups["cold"].empty:
        gaps.append("cold shoppers (the window has none)")
    if judged.catalogue is None:
        gaps.append("the prefiltered catalogue (notebook 02 has not written it)")
    if fold.events is None:
        gaps.append(
            "views and carts (the shop keeps receipts only: "
            "purchases are the online models' events)"
        )
    for model, reason in load_left_out(fold).items():
        gaps.append(f"{display_name(model)} ({reason})")
    if len(judged.runs) == 1:
        gaps.append("comparisons between models (there is only one)")
    return gaps


def commit() -> str:
    """The code's git commit; '' outside a repository."""
    git = ["git", "-C", str(Path(__file__).parent), "rev-parse", "--short=12", "HEAD"]
    result = subprocess.run(git, capture_output=True, text=True, check=False)
    return result.stdout.strip() if result.returncode == 0 else ""
