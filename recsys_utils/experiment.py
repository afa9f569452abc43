"""`python -m recsys_utils.experiment`: a test of two lists in the shop.

`plan` says how many shoppers and weeks it takes, `split` draws who sees which list, and `read`
turns a file of results into one page.
"""

import argparse
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.stats import norm

from recsys_utils import LabError
from recsys_utils.data import tables
from recsys_utils.data.handed import check_out, ids_of, need_columns, numbers_of, read_rows, refuse
from recsys_utils.evaluation.ab_test import ARMS, PLANNED, Reading, arms, critical_value, read
from recsys_utils.evaluation.experiment import (
    CAP,
    WEEKS,
    first_purchase_tests,
    shoppers_needed,
    smallest_lead,
    spending_tests,
)
from recsys_utils.report.html import render, write
from recsys_utils.report.wording import percent
from recsys_utils.store import atomic

# What is done with shoppers of the split who are not in the results.
REFUSE = "refuse"
ZERO = "zero"
READINGS = {
    "plain": "as it is",
    "capped": "large values cut",
    "cuped": "large values cut, freed of the weeks before",
}
# Under the plan's table.
ANY_TIME = (
    "needed_any_time is for a test that you read as often as you like. So many shoppers are enough"
    " only if each `read` gets --planned with that number, without commas."
)
# What a reader of the page does next.
SENTENCES = {
    "better": "Ship the new list.",
    "worse": "Keep today's list.",
    "cannot tell": "The test cannot tell yet: the lead may be nothing. Go on with it.",
    "too few": "Too few shoppers to say anything: go on.",
    "unreadable": (
        "Do not read this test: the arms' sizes do not fit the split that was planned, so"
        " something decides who is counted. Find it and start a new test."
    ),
}


def plan(dataset: str, lead: float = 0.05) -> pd.DataFrame:
    """How large a 50/50 test must be to see a lead, by the receipts of a shop.

    dataset: a name, or the path of a TOML. lead: as a share of the mean.
    Returns measure, weeks, reading (plain, capped, cuped), shoppers (who bought in the 12 weeks
    before such a test), needed (read once, at its end), needed_any_time (read whenever one likes)
    and smallest (lead that all these shoppers show, read once).
    Raises LabError where the receipts are too short, and for a lead that is not above 0, up to 2.
    """
    if not 0 < lead <= 2:
        raise LabError(f"--lead {lead:g}: take a share above 0 and up to 2; 0.05 means 5 %")
    shop = tables.load(dataset)
    if not shop.spec.is_dated:
        raise LabError(
            f"the receipts of '{shop.spec.name}' have an order and no dates, so no weeks can be"
            " planned: map their ts"
        )
    purchases = shop.purchases
    found = [("first purchases", first_purchase_tests(purchases))]
    if "price" in purchases:
        found.insert(0, ("spending", spending_tests(purchases)))
    rows = []
    for measure, tests in found:
        for test in tests.itertuples():
            for reading in READINGS:
                rows.append({"measure": measure, "reading": reading} | _size(test, reading, lead))
    if not rows:
        raise LabError(f"the receipts of {dataset} hold no {2 * min(WEEKS)} weeks to plan by")
    return pd.DataFrame(rows)


def split(users: list[str], salt: str, share: float = 0.5) -> pd.DataFrame:
    """user_id and arm of all shoppers; see `arms` for how, in any language.

    Raises LabError for an empty salt and an id that stands twice.
    """
    if not salt:
        raise LabError("--salt is empty: take a name for this test, such as spring-2026")
    _refuse_twice(pd.Series(users, dtype=str), "the shoppers")
    return pd.DataFrame({"user_id": users, "arm": arms(users, salt, share)})


def load_results(
    path: Path, measure: str = "spend", salt: str | None = None, share: float = 0.5
) -> pd.DataFrame:
    """A file of results: user_id, arm, the measure and maybe <measure>_before, checked.

    path: .csv or .parquet. salt: of the split, whose arms are then compared with the file's.
    Raises LabError, naming the file and the row, for a missing column, an id that is empty or
    stands twice, an unknown arm, an arm that is not the split's, and what is no number.
    """
    table = read_rows(path)
    need_columns(table, ("user_id", "arm", measure), path)
    table["user_id"] = ids_of(table["user_id"], path)
    _refuse_twice(table["user_id"], str(path))
    refuse(~table["arm"].isin(ARMS).to_numpy(), table["arm"], path, f"not {' or '.join(ARMS)}")
    if salt is not None:
        is_other = (table["arm"] != arms(table["user_id"], salt, share)).to_numpy()
        refuse(is_other, table["arm"], path, f"but the split by '{salt}' has the other one")
    for column in (measure, f"{measure}_before"):
        if column in table:
            table[column] = numbers_of(table[column], path)
    return table


def with_missing(
    table: pd.DataFrame, path: Path, split: Path, measure: str = "spend", missing: str = REFUSE
) -> tuple[pd.DataFrame, int]:
    """Results of every shopper of a split, and how many of these were missing in the file.

    table: as `load_results` gives it, of the file `path`. split: a file as the command `split`
    writes it. missing: "zero" adds the missing ones with a measure of 0. What they spent before is
    not known and not 0, so that column is then left out for all.
    Raises LabError for shoppers that the split does not have or has in the other arm, and for
    missing ones, if these are to be refused.
    """
    drawn = _drawn(split)
    arm = table["user_id"].map(drawn)
    refuse(arm.isna().to_numpy(), table["user_id"], path, f"which {split} does not have")
    refuse((arm != table["arm"]).to_numpy(), table["arm"], path, f"but {split} has the other one")
    absent = drawn.index.difference(table["user_id"])
    if not len(absent):
        return table, 0
    if missing == REFUSE:
        raise LabError(
            f"{path} lacks {len(absent):,} of the {len(drawn):,} shoppers of {split}, such as"
            f" {absent[0]}: add a row for each. If all of them bought nothing, --missing {ZERO}"
            " counts them as 0"
        )
    added = pd.DataFrame({"user_id": absent, "arm": drawn[absent].to_numpy(), measure: 0.0})
    known = table.drop(columns=f"{measure}_before", errors="ignore")
    return pd.concat([known, added], ignore_index=True), len(absent)


def warnings(reading: Reading, is_whole: bool = False) -> list[str]:
    """What makes a reading doubtful, in sentences. is_whole: a split was compared."""
    found = []
    if reading.only_buyers and not is_whole:
        found.append(
            f"Nobody's {reading.measure} is 0. If the file holds only who bought, the arms hold"
            " different kinds of shoppers, and the lead may be wrong either way. Add a row with 0"
            " for everybody else of the split; --split names who is missing."
        )
    if reading.before_differs:
        found.append(
            f"{reading.measure}_before differs between the arms by more than chance"
            f" (p = {reading.before_p:.1g}): the column may hold weeks of the test, or the split"
            " was not random. The reading without it decides."
        )
    return found


def told(reading: Reading, planned: float = PLANNED, doubts: Iterable[str] = ()) -> str:
    """A reading as text: the verdict, what makes it doubtful, then what it rests on."""
    lines = [SENTENCES[reading.verdict], ""]
    lines += [f"warning: {text}" for text in doubts]
    lines += [f"{name}: {text}" for name, text in facts(reading, planned)]
    for row in reading.rows.itertuples():
        text = f"{row.lead:+,.4g}, from {row.low:+,.4g} to {row.high:+,.4g}"
        lines.append(f"lead, {READINGS[row.reading]}: {text} (today {row.today:,.4g})")
    return "\n".join(lines)


def facts(reading: Reading, planned: float = PLANNED) -> list[tuple[str, str]]:
    """Names and values of what a verdict rests on, beside the leads themselves."""
    last = reading.rows.iloc[-1]
    relative = "today's mean is not above 0"
    if last["today"] > 0:
        ends = [percent(last[name] / last["today"]) for name in ("lead", "low", "high")]
        relative = f"{ends[0]}, from {ends[1]} to {ends[2]}"
    reach = critical_value(reading.new + reading.today, planned)
    cut = f"above {reading.limit:,.4g}"
    if reading.lowest is not None:
        cut += f" and below {reading.lowest:,.4g}"
    return [
        ("what decides", f"{reading.measure} per shopper, {READINGS[last['reading']]}"),
        ("lead as a share of today's", relative),
        ("shoppers", f"{reading.new:,} with the new list, {reading.today:,} with today's"),
        ("do the arms' sizes fit the split", f"p = {reading.ratio_p:.3g}; below 0.01 they do not"),
        ("values are cut", cut),
        ("interval", f"95 % at all looks together, {reach:.2f} standard errors to both sides"),
    ]


def page(reading: Reading, title: str, planned: float = PLANNED, doubts: Iterable[str] = ()) -> str:
    """The verdict as one HTML page that prints on one sheet."""
    rows = reading.rows.assign(reading=reading.rows["reading"].map(READINGS))
    return render(
        "experiment.html.j2",
        title=title,
        sentence=SENTENCES[reading.verdict],
        warnings=list(doubts),
        facts=facts(reading, planned),
        rows=rows.to_dict("records"),
    )


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Returns 0, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    commands = {"plan": _plan, "split": _split, "read": _read}
    try:
        commands[options.command](options)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _plan(options: argparse.Namespace) -> None:
    table = plan(options.dataset, options.lead)
    shown = table.assign(smallest=[percent(share) for share in table["smallest"]])
    for column in ("shoppers", "needed", "needed_any_time"):
        shown[column] = [f"{value:,.0f}" for value in shown[column]]
    print(f"To see a lead of {percent(options.lead)} with 80 % power, at 5 %, half and half:\n")
    print(shown.to_string(index=False))
    print(f"\n{_advice(table)}\n")
    print(ANY_TIME)


def _advice(table: pd.DataFrame) -> str:
    """The shortest test that this shop has the shoppers for, of spending if possible."""
    fits = table[(table["needed"] <= table["shoppers"]) & (table["reading"] == "cuped")]
    if not len(fits):
        best = table.loc[table["smallest"].idxmin()]
        return (
            "This shop cannot see such a lead. The smallest that it can see is"
            f" {percent(best['smallest'])} of {best['measure']}, in {best['weeks']:g} weeks. The"
            " report's first screen says how many shoppers a test of the list's own hits takes."
        )
    test = fits.iloc[0]
    instead = "" if test["measure"] == "spending" else "No test of spending can see it. "
    return (
        f"{instead}Test {test['measure']} for {test['weeks']:g} weeks: {test['needed']:,.0f} of"
        f" your {test['shoppers']:,.0f} active shoppers are enough, if read once at the end."
        f" {_any_time(test)}"
    )


def _any_time(test: pd.Series) -> str:
    """What the same test takes if it is read as often as one likes."""
    needed = int(np.ceil(test["needed_any_time"]))
    if needed > test["shoppers"]:
        return f"Read as often as you like it takes {needed:,}, more than you have."
    return f"Read as often as you like it takes {needed:,}: give `read` --planned {needed}."


def _split(options: argparse.Namespace) -> None:
    if options.users is None:
        users = sorted(tables.load(options.dataset).purchases["user_id"].astype(str).unique())
    else:
        table = read_rows(options.users)
        need_columns(table, ("user_id",), options.users)
        users = ids_of(table["user_id"], options.users).tolist()
    check_out(options.out, [".csv"], options.users)
    drawn = split(users, options.salt, options.share)
    try:
        with atomic(options.out) as temporary:
            drawn.to_csv(temporary, index=False)
    except OSError as error:
        raise LabError(f"--out {options.out}: {error.strerror}: choose another folder") from error
    counts = drawn["arm"].value_counts()
    print(f"{options.out}: {', '.join(f'{counts.get(arm, 0):,} {arm}' for arm in ARMS)}")


def _read(options: argparse.Namespace) -> None:
    if not options.planned >= 1:
        raise LabError(f"--planned {options.planned:g}: take 1 shopper or more")
    if options.out:
        check_out(options.out, [".html"], options.results)
    table = load_results(options.results, options.measure, options.salt, options.share)
    table, added = _completed(options, table)
    reading = read(table, options.measure, options.planned, options.share, options.cap)
    doubts = warnings(reading, options.split is not None)
    if added:
        doubts.append(
            f"{added:,} shoppers of {options.split.name} are not in {options.results.name} and"
            " count as 0. What they spent before is not known, so the reading without it decides."
        )
    print(told(reading, options.planned, doubts))
    if options.out:
        try:
            write(page(reading, options.results.name, options.planned, doubts), options.out)
        except OSError as error:
            reason = error.strerror
            raise LabError(f"--out {options.out}: {reason}: choose another folder") from error
        print(f"\n{options.out}")


def _completed(options: argparse.Namespace, table: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """The results, compared with the split if one is given, and how many were missing."""
    if options.split is not None:
        split, measure = options.split, options.measure
        return with_missing(table, options.results, split, measure, options.missing)
    if options.missing != REFUSE:
        raise LabError(f"--missing {options.missing}: give --split too, which names the shoppers")
    return table, 0


def _drawn(path: Path) -> pd.Series:
    """The arm of each shopper of a file that the command `split` wrote."""
    table = read_rows(path)
    need_columns(table, ("user_id", "arm"), path)
    users = ids_of(table["user_id"], path)
    _refuse_twice(users, str(path))
    refuse(~table["arm"].isin(ARMS).to_numpy(), table["arm"], path, f"not {' or '.join(ARMS)}")
    return pd.Series(table["arm"].to_numpy(), pd.Index(users))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m recsys_utils.experiment", description="A test of two lists in the shop."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    planned = commands.add_parser("plan", help="how many shoppers and weeks a test takes")
    planned.add_argument("--dataset", required=True, metavar="NAME|FILE.toml")
    planned.add_argument("--lead", type=float, default=0.05, help="share to see (default 0.05)")
    drawn = commands.add_parser("split", help="who sees which list")
    who = drawn.add_mutually_exclusive_group(required=True)
    who.add_argument("--dataset", metavar="NAME|FILE.toml", help="everybody who bought there")
    who.add_argument("--users", type=Path, metavar="FILE", help="a column user_id")
    drawn.add_argument("--salt", required=True, help="the name of the test; it decides the arms")
    drawn.add_argument("--out", type=Path, default=Path("split.csv"))
    results = commands.add_parser("read", help="what the test says so far")
    option = results.add_argument
    option("results", type=Path, help="user_id, arm, spend and maybe spend_before (.csv, .parquet)")
    option("--measure", default="spend", help="the column that decides (default spend)")
    option(
        "--planned",
        type=float,
        default=PLANNED,
        metavar="N",
        help=f"shoppers of the plan: needed_any_time of `plan` (default {PLANNED})",
    )
    option("--split", type=Path, metavar="FILE", help="of `split`: who is missing, who is unknown")
    option("--missing", choices=[REFUSE, ZERO], default=REFUSE, help="who is missing (refuse)")
    option("--salt", help="of the split: the file's arms are compared with it")
    option(
        "--cap", type=float, default=CAP, help="quantile where values are cut, both ends; 1: none"
    )
    option("--out", type=Path, metavar="FILE.html", help="write the verdict as a page")
    for command in (drawn, results):
        command.add_argument("--share", type=float, default=0.5, help="of the new list (0.5)")
    return parser


def _size(test: tuple, reading: str, lead: float) -> dict[str, float]:
    """What one test of one measure needs, read in one way."""
    mean = test.mean if reading == "plain" else test.capped_mean
    sd = getattr(test, reading)
    any_time = 2 * norm.sf(critical_value(PLANNED, PLANNED))
    return {
        "weeks": test.weeks,
        "shoppers": test.shoppers,
        "needed": shoppers_needed(sd, lead * mean),
        "needed_any_time": shoppers_needed(sd, lead * mean, alpha=any_time),
        "smallest": smallest_lead(sd, test.shoppers) / mean if mean else np.inf,
    }


def _refuse_twice(users: pd.Series, where: str) -> None:
    if users.duplicated().any():
        twice = users[users.duplicated()]
        raise LabError(
            f"{where}: user_id '{twice.iloc[0]}' stands more than once, as {twice.nunique():,} ids"
            " do: keep one row for each shopper"
        )


if __name__ == "__main__":
    sys.exit(main())
