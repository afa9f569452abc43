"""Two kept runs side by side: what differs, paired over shoppers; and the gate of a scheduler."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from recsys_utils import LabError
from recsys_utils.evaluation.significance import Interval, holm, intervals, paired_tests
from recsys_utils.report.html import render, write
from recsys_utils.report.kept import K, KeptRun
from recsys_utils.report.verdict import LEAST_SHOPPERS
from recsys_utils.report.wording import display_name, metric_label, num

# How `./run_all.sh --gate` ends; 1 and 2 are errors.
BETTER, WORSE, CANNOT_TELL = 0, 10, 20
NO_LEAD = ""  # no model's name: beside the leads a column of zeros, which each is tested against
KEYS = ["fold", "model", "scope", "users_scope", "metric", "k"]  # of a leaderboard's number
LONGEST_VALUE = 40
COLUMNS = ["model", "best_in", "value", "other", "lead", "low", "high", "p"]  # of differences


@dataclass
class Comparison:
    """What differs between two runs; `A` is the first, `B` the second.

    notes: whom and which weeks the numbers are about. parameters: parameter, A, B. only: models
    by the one run that has them. differences: metric, model, best_in (A or B), value, other, lead
    (of the better run), low, high, p (Holm over the models of a metric); best value first.
    equal: how many models have the same values, by metric. others: numbers of the leaderboard that
    differ too, without a shopper's values to pair.
    """

    first: KeptRun
    second: KeptRun
    notes: list[str] = field(default_factory=list)
    parameters: pd.DataFrame = field(default_factory=pd.DataFrame)
    only: dict[str, list[str]] = field(default_factory=dict)
    differences: pd.DataFrame = field(default_factory=pd.DataFrame)
    equal: dict[str, int] = field(default_factory=dict)
    others: int = 0

    @property
    def is_nothing(self) -> bool:
        """Whether nothing at all differs."""
        tables = (self.parameters, self.differences)
        return not (any(map(len, tables)) or any(self.only.values()) or self.others)


@dataclass
class Gate:
    """What a scheduler is told: an exit code, and the sentence with lead and interval."""

    code: int
    sentence: str


def compare(first: KeptRun, second: KeptRun) -> Comparison:
    """All that differs between two runs of one data set.

    Raises LabError for runs of two data sets, and where no shopper is judged by both.
    """
    _one_data_set(first, second)
    models = [set(run.values["precision"]) for run in (first, second)]
    comparison = Comparison(first, second, _whom(first, second))
    comparison.parameters = _parameters(first.about, second.about)
    comparison.only = {"A": sorted(models[0] - models[1]), "B": sorted(models[1] - models[0])}
    tables = []
    for metric in [name for name in first.metrics if name in second.metrics]:
        table, equal = _differences(first.values[metric], second.values[metric])
        if len(table):
            tables.append(table.assign(metric=metric))
        comparison.equal[metric] = equal
    nothing = pd.DataFrame(columns=["metric", *COLUMNS])
    comparison.differences = pd.concat(tables, ignore_index=True) if tables else nothing
    comparison.others = _others(first, second)
    return comparison


def told(comparison: Comparison) -> str:
    """A comparison as text."""
    lines = [_headline(letter, run) for letter, run in _lettered(comparison)]
    lines += comparison.notes
    if comparison.is_nothing:
        return "\n".join([*lines, "Nothing differs."])
    if len(comparison.parameters):
        lines += ["", "Parameters that differ", *_rows(comparison.parameters.map(_short))]
    for letter, models in comparison.only.items():
        if models:
            lines += ["", f"Models only in {letter}: {', '.join(models)}"]
    for metric, equal in comparison.equal.items():
        table = shown(comparison, metric)
        lines += ["", f"{metric_label(metric, K)}: {_counted(len(table), equal)}", *_rows(table)]
    if comparison.others:
        lines += ["", _of_others(comparison)]
    return "\n".join(lines)


def write_page(comparison: Comparison) -> Path:
    """Write a comparison as a page beside the second run; its path."""
    metrics = {}
    for metric, equal in comparison.equal.items():
        table = shown(comparison, metric)
        metrics[metric_label(metric, K)] = (_counted(len(table), equal), table)
    page = render(
        "two_runs.html.j2",
        heads=[_headline(letter, run) for letter, run in _lettered(comparison)],
        notes=comparison.notes,
        nothing=comparison.is_nothing,
        parameters=comparison.parameters,
        only=comparison.only,
        metrics=metrics,
        others=_of_others(comparison) if comparison.others else "",
    )
    name = f"{comparison.first.name}-and-{comparison.second.name}.html"
    return write(page, comparison.second.folder.parent / name)


def shown(comparison: Comparison, metric: str) -> pd.DataFrame:
    """The differences of a metric as a reader sees them; the higher value comes first."""
    table = comparison.differences
    table = table[table["metric"] == metric]
    return pd.DataFrame(
        {
            "model": table["model"],
            "higher in": table["best_in"],
            "its value": table["value"].map(num),
            "the other's": table["other"].map(num),
            "lead": table["lead"].map(_signed),
            "95 % interval": [
                f"{_signed(a)} to {_signed(b)}" for a, b in table[["low", "high"]].values
            ],
            "p (Holm)": [f"{p:.2g}" for p in table["p"]],
        }
    )


def gate(new: KeptRun, incumbent: KeptRun) -> Gate:
    """Whether a run's choice is better than the model that the incumbent run chose.

    Over the same weeks the incumbent's list is the one that it recorded. Where the weeks moved on,
    that list is for other weeks, so the model of its name is taken as the new run made it.
    Raises LabError for runs of two data sets.
    """
    _one_data_set(new, incumbent)
    if new.folder == incumbent.folder:
        return Gate(CANNOT_TELL, f"cannot tell: this run is {incumbent.name} itself, to the digit")
    if not (new.choice and incumbent.choice):
        run = incumbent if new.choice else new
        return Gate(CANNOT_TELL, f"cannot tell: {run.name} made no choice on validation")
    old = f"{display_name(incumbent.choice)}, the choice of {incumbent.name}"
    if _same_weeks(new, incumbent):
        rival, how = incumbent, "by the lists that it recorded for the same weeks"
    else:
        rival, how = new, "fitted again by this run, since the weeks have moved on"
        if new.choice == incumbent.choice:
            return Gate(
                CANNOT_TELL,
                f"cannot tell: {display_name(new.choice)} is chosen again, as by {incumbent.name}; "
                f"the weeks have moved on ({_weeks(new)}), for which that run has no lists",
            )
    if incumbent.choice not in rival.values["precision"]:
        return Gate(CANNOT_TELL, f"cannot tell: {old}, has no lists in {rival.name}")
    mine = new.values["precision"][new.choice]
    difference = (mine - rival.values["precision"][incumbent.choice]).dropna()
    if len(difference) < LEAST_SHOPPERS:
        few = f"{len(difference)} shoppers are judged by both, {LEAST_SHOPPERS} are needed"
        return Gate(CANNOT_TELL, f"cannot tell: {few}; {old}")
    lead = intervals(difference.to_numpy()[:, None])[0]
    code, word = _verdict(lead)
    return Gate(
        code,
        f"{word}: {display_name(new.choice)} against {old} ({how}): lead {_signed(lead.value)}"
        f" {metric_label('precision', K)}, 95 % interval {_signed(lead.low)} to"
        f" {_signed(lead.high)}, paired over {len(difference):,} shoppers, {_weeks(new)}",
    )


def _verdict(lead: Interval) -> tuple[int, str]:
    if lead.holds_zero:
        return CANNOT_TELL, "cannot tell"
    return (BETTER, "better") if lead.value > 0 else (WORSE, "worse")


def _one_data_set(first: KeptRun, second: KeptRun) -> None:
    names = [run.about["dataset"] for run in (first, second)]
    if names[0] != names[1]:
        raise LabError(
            f"{first.name} is of '{names[0]}', {second.name} of '{names[1]}': take two runs of one"
            " data set"
        )


def _same_weeks(first: KeptRun, second: KeptRun) -> bool:
    """Whether both test windows are the same days; without a calendar, the same receipts."""
    folds = [run.about["fold"] for run in (first, second)]
    borders = [(fold["borders"].get("test"), fold["borders"].get("end")) for fold in folds]
    return folds[0]["hash"] == folds[1]["hash"] or borders[0] == borders[1] != (None, None)


def _weeks(run: KeptRun) -> str:
    borders = run.about["fold"]["borders"]
    if not borders:
        return "each shopper's last basket"
    last = pd.Timestamp(borders["end"]) - pd.Timedelta(days=1)
    return f"{pd.Timestamp(borders['test']):%Y-%m-%d} to {last:%Y-%m-%d}"


def _whom(first: KeptRun, second: KeptRun) -> list[str]:
    """Which shoppers and weeks are compared, and who is left out."""
    users = [run.values["precision"].index for run in (first, second)]
    both = len(users[0].intersection(users[1]))
    if not both:
        raise LabError(
            f"no shopper is judged by both {first.name} and {second.name}: take runs whose test"
            " weeks have shoppers in common"
        )
    same = _same_weeks(first, second)
    weeks = _weeks(first) if same else "each run in weeks of its own"
    notes = [f"Compared: the {both:,} shoppers that both runs judge, {weeks}."]
    left = [len(each) - both for each in users]
    if any(left):
        notes.append(f"Left out: {left[0]:,} shoppers only in A, {left[1]:,} only in B.")
    if not same:
        notes.append(
            f"The weeks differ, A: {_weeks(first)}, B: {_weeks(second)}. A lead may be the weeks'"
            " and not the run's."
        )
    elif first.about["fold"]["hash"] != second.about["fold"]["hash"]:
        notes.append("The receipts differ: the same weeks were cut from other data.")
    return notes


def _parameters(first: dict, second: dict) -> pd.DataFrame:
    """Parameters of notebooks, settings, tuned parameters and versions: those that differ."""
    differing: dict[tuple, list[str]] = {}  # notebooks by (parameter, A, B)
    shared = first["parameters"].keys() & second["parameters"].keys()
    for number in sorted(shared):
        for name, *values in _unequal(first["parameters"][number], second["parameters"][number]):
            differing.setdefault((name, *values), []).append(number)
    rows = []
    for (name, *values), numbers in differing.items():
        notebooks = "notebook" if len(numbers) == 1 else "notebooks"
        rows.append((f"{name} ({notebooks} {', '.join(numbers)})", *values))
    only_first = sorted(first["parameters"].keys() - shared)
    only_second = sorted(second["parameters"].keys() - shared)
    if only_first or only_second:
        only = (", ".join(numbers) or "–" for numbers in (only_first, only_second))
        rows.append(("notebooks that only this run knows", *only))
    rows += _unequal(_flat(first["settings"]), _flat(second["settings"]))
    for model in sorted(first["models"].keys() & second["models"].keys()):
        for name, *values in _unequal(first["models"][model], second["models"][model]):
            rows.append((f"{model}: {name}", *values))
    chosen = [each["choice"] and each["choice"]["model"] for each in (first, second)]
    rows += _unequal({"choice": chosen[0]}, {"choice": chosen[1]})
    rows += _unequal(first["libraries"], second["libraries"])
    rows += _unequal({"code": first["commit"]}, {"code": second["commit"]})
    return pd.DataFrame(rows, columns=["parameter", "A", "B"])


def _unequal(first: dict, second: dict) -> list[tuple[str, str, str]]:
    """Names whose values differ, with both values as text."""
    rows = []
    for name in sorted(first.keys() | second.keys()):
        a = _text(first[name]) if name in first else "–"
        b = _text(second[name]) if name in second else "–"
        if a != b:
            rows.append((name, a, b))
    return rows


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def _flat(settings: dict) -> dict[str, object]:
    """Settings with those of a table as table.name."""
    flat = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            flat |= {f"{name}.{key}": each for key, each in value.items()}
        else:
            flat[name] = value
    return flat


def _differences(first: pd.DataFrame, second: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """A metric's differences by model, and how many models are equal. Frames: shoppers × models."""
    models = first.columns.intersection(second.columns)
    users = first.index.intersection(second.index)
    a, b = first.loc[users, models], second.loc[users, models]
    leads = b - a
    leads = leads.loc[:, (leads != 0).any()]
    # The better run's value minus the other's.
    leads = leads * np.where(leads.mean() < 0, -1, 1)
    rows = []
    for model, interval in zip(leads, intervals(leads.to_numpy()) if leads.size else []):
        means = {"A": float(a[model].mean()), "B": float(b[model].mean())}
        best, worst = sorted(means, key=means.get, reverse=True)
        ends = interval.value, interval.low, interval.high
        rows.append((model, best, means[best], means[worst], *ends))
    table = pd.DataFrame(rows, columns=COLUMNS[:-1])
    table["p"] = _holm_against_nothing(leads)
    table = table.sort_values(["value", "model"], ascending=[False, True])
    return table, len(models) - len(table)


def _holm_against_nothing(leads: pd.DataFrame) -> np.ndarray:
    """Paired permutation test of each column with no difference, Holm over the columns."""
    if not leads.size:
        return np.array([])
    tests = paired_tests(leads.assign(**{NO_LEAD: 0.0}))
    return holm(tests.loc[tests["model_b"] == NO_LEAD, "p"].to_numpy())


def _others(first: KeptRun, second: KeptRun) -> int:
    """Numbers of both leaderboards that differ and are not paired here."""
    a = first.board.set_index(KEYS)["value"]
    b = second.board.set_index(KEYS)["value"]
    both = a.index.intersection(b.index)
    unequal = both[~np.isclose(a[both], b[both], rtol=1e-5, equal_nan=True)].to_frame()
    is_paired = (
        unequal["metric"].isin(first.metrics)
        & (unequal["k"] == K)
        & (unequal["scope"] == "any")
        & (unequal["users_scope"] == "warm")
    )
    return int((~is_paired).sum())


def _lettered(comparison: Comparison) -> list[tuple[str, KeptRun]]:
    return [("A", comparison.first), ("B", comparison.second)]


def _headline(letter: str, run: KeptRun) -> str:
    choice = f"chose {display_name(run.choice)}" if run.choice else "made no choice"
    seconds = sum(run.about["seconds"].values())
    return f"{letter}  {run.name}  {choice}, {seconds:,.0f} s"


def _counted(differing: int, equal: int) -> str:
    models = "1 model differs" if differing == 1 else f"{differing} models differ"
    return f"{models}, {equal} equal"


def _of_others(comparison: Comparison) -> str:
    return (
        f"{comparison.others:,} other numbers of the leaderboards differ (other k, scopes and"
        " groups): see leaderboard.csv in both folders."
    )


def _signed(lead: float) -> str:
    """A lead with its sign and four decimals, so that those of a table can be compared."""
    return f"{lead:+.4f}".replace("-", "−")


def _rows(table: pd.DataFrame) -> list[str]:
    return table.to_string(index=False).splitlines() if len(table) else []


def _short(text: str) -> str:
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"
