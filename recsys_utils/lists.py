"""`python -m recsys_utils.lists`: everybody's recommendations in one file, for a mailing.

The model that the report ships, with the parameters that its run recorded, fitted on all receipts.
"""

import argparse
import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import numpy as np
import pandas as pd

from recsys_utils import LabError
from recsys_utils.data import tables
from recsys_utils.data.folds import Fold, has_folds, load_fold
from recsys_utils.data.handed import SUFFIXES, check_out, ids_of, need_columns, read_rows
from recsys_utils.data.interactions import RECENT_DAYS, Interactions, codes
from recsys_utils.data.runs import has_runs, load_metas
from recsys_utils.ensembles.new_for_you import NEW_FOR_YOU, with_new
from recsys_utils.models import OwnPurchases, Recommender
from recsys_utils.models.base import recorded_model
from recsys_utils.report.judged import judge_fold
from recsys_utils.report.verdict import shipped
from recsys_utils.store import atomic

COLUMNS = [
    "user_id",
    "rank",
    "item_id",
    "name",
    "price",
    "reason",
    "last_bought",
    "score",
    "model",
]
# The model that needs no run: what the shopper bought most, lately.
WITHOUT_RUN = "own_decayed"
# A spreadsheet takes a text that begins so for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
# The model that learnt from attributes, for clients without a receipt, where a run chose it.
BY_ATTRIBUTES = "preference_pairs"
BOUGHT = "You bought it"
STRANGER = "A bestseller of these weeks"
BY_PROFILE = "Liked by shoppers with a similar profile"
TO_OPEN = "for a spreadsheet take .xlsx, in which ids and names are text whatever they hold"
WRITERS = (".csv", ".parquet", ".xlsx")


def recommendations(
    dataset: str,
    k: int = 10,
    users: list[str] | None = None,
    model: str | None = None,
    new_only: bool = False,
    min_score: float | None = None,
    new_items: int = 0,
) -> pd.DataFrame:
    """Lists of a data set's shoppers from one model that knows all receipts.

    dataset: a name, or the path of a TOML. k: items per shopper at most. users: ids, by default of
    all that have a receipt. Who never bought anything gets a list by what the shop's file of users
    says, if the model or the recorded preference pairs learnt from that, else the bestsellers.
    model: a name from the leaderboard, its best one by default. new_only: nothing that the shopper
    bought before. min_score: of the model's own scale. new_items: so many of each list are new to
    the shopper, as far as there are any; they come from the model that is judged on new items, or
    from the same model where it has no run, and with them the score is only the order.
    Returns user_id, rank, item_id, name, price (of these weeks), reason, last_bought, score, model.
    Raises LabError where no run says which model to take, or the model cannot be fitted again.
    """
    _check(k, new_items, new_only, min_score)
    data = tables.load(dataset)
    name, fitted = _fitted(dataset, data, model)
    receipts = data.interactions()
    fitted.fit(receipts)
    everybody = list(receipts.user_ids) if users is None else users
    exclude = "bought" if new_only or not data.spec.repeats else None
    clients = data.clients(receipts)
    clients = clients[clients.index.isin(everybody)]
    recs = fitted.recommend(everybody, k, exclude).assign(model=name)
    by_profile = _by_profile(dataset, data, name, fitted, clients, k)
    if len(by_profile):
        recs = pd.concat([recs[~recs["user_id"].isin(by_profile["user_id"])], by_profile])
    if new_items:
        found = _discoveries(dataset, data, name, fitted, everybody, k + new_items)
        recs = _promised(recs, found, receipts, new_items, k)
    if min_score is not None:
        recs = recs[(recs["score"] >= min_score) | (recs["model"] != name)]
    table = _described(recs, receipts, data.spec.is_dated)
    is_told = table["user_id"].isin(by_profile["user_id"])
    table["reason"] = table["reason"].mask(is_told, BY_PROFILE)
    return table[COLUMNS]


def current_prices(receipts: Interactions, dated: bool = True) -> np.ndarray:
    """What each item costs now, float64; NaN where there are no prices.

    The median price of its lines of the last 28 days before the last receipt, or of its newest line
    where it was not sold since. dated: without dates nothing is new, and all lines count.
    """
    if "price" not in receipts.purchases or not dated:
        return receipts.price
    ts = receipts.purchases["ts"]
    newest = ts.groupby(receipts.item).transform("max")
    since = newest.clip(upper=ts.max() - pd.Timedelta(days=RECENT_DAYS))
    is_new = (ts >= since).to_numpy()
    median = receipts.purchases["price"][is_new].groupby(receipts.item[is_new]).median()
    return median.reindex(range(receipts.shape[1])).to_numpy(float)


def lacking(table: pd.DataFrame, users: Iterable[str], n: int) -> int:
    """How many of these users have fewer than n new items in a table of `recommendations`."""
    is_new = ~table["reason"].str.startswith(BOUGHT)
    found = table.loc[is_new, "user_id"].value_counts()
    return int((found.reindex(pd.Index(users).unique(), fill_value=0) < n).sum())


def write_lists(table: pd.DataFrame, path: Path) -> None:
    """Write a table of `recommendations` whole, as .csv, .xlsx or .parquet.

    A .csv begins with the mark by which spreadsheets know UTF-8. In it names that a spreadsheet
    would compute get an apostrophe, and ids stay as they are, for machines. In an .xlsx every text
    is text, whatever it holds: 007 stays 007 on the screen, and =1+0 is no formula.
    """
    check_out(path, WRITERS)
    try:
        with atomic(path) as temporary:
            if path.suffix == ".parquet":
                table.to_parquet(temporary, index=False)
            elif path.suffix == ".xlsx":
                _write_workbook(table, temporary)
            else:
                _write_csv(table, temporary)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise LabError(f"--out {path}: {reason}: choose another folder") from error


def formula_ids(table: pd.DataFrame) -> list[str]:
    """The ids of a table of `recommendations` that a spreadsheet takes for formulas in a .csv."""
    ids = pd.concat([table["user_id"], table["item_id"]]).drop_duplicates()
    return ids[ids.str.startswith(FORMULA)].tolist()


def main(arguments: list[str] | None = None) -> int:
    """Write the file and say what is in it. Returns 0, or 2 for bad input."""
    options = _parser().parse_args(arguments)
    try:
        users = _users(options.users)
        given = Path(options.users) if options.users else None
        check_out(options.out, WRITERS, given)  # before anything is fitted
        table = recommendations(
            options.dataset,
            options.k,
            users,
            options.model,
            options.new_only,
            options.min_score,
            options.new_items,
        )
        if not len(table):
            raise LabError("nothing is left to recommend: lower --min-score")
        write_lists(table, options.out)
        _warn_of_formulas(table, options.out)
    except LabError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    strangers = 0 if users is None else table.loc[table["reason"] == STRANGER, "user_id"].nunique()
    told = table.loc[table["reason"] == BY_PROFILE, "user_id"].nunique()
    print(
        f"{options.out}: {len(table):,} rows for {table['user_id'].nunique():,} shoppers from"
        f" {' and '.join(table['model'].unique())}"
    )
    if options.new_items:
        _report_promise(table, options, table["user_id"].unique() if users is None else users)
    if told:
        print(f"Without any receipt, chosen by what is known of them: {told:,}", file=sys.stderr)
    if strangers:
        print(f"Without any receipt, given the bestsellers: {strangers:,}", file=sys.stderr)
    return 0


def _write_csv(table: pd.DataFrame, path: Path) -> None:
    """Names that a spreadsheet would compute get an apostrophe."""
    is_formula = table["name"].str.startswith(FORMULA)
    written = table.assign(
        name=table["name"].where(~is_formula, "'" + table["name"]),
        score=[float(f"{score:.6g}") for score in table["score"]],
    )
    written.to_csv(path, index=False, encoding="utf-8-sig", float_format="%.12g")


def _write_workbook(table: pd.DataFrame, path: Path) -> None:
    """Every text as a cell of text, also after somebody edits it."""
    with path.open("wb") as file, pd.ExcelWriter(file, engine="openpyxl") as writer:
        table.to_excel(writer, index=False)
        [sheet] = writer.sheets.values()
        for cell in chain.from_iterable(sheet.iter_rows()):
            if isinstance(cell.value, str):
                cell.data_type = "s"
                cell.number_format = "@"


def _warn_of_formulas(table: pd.DataFrame, path: Path) -> None:
    """Name ids of a .csv that a spreadsheet would compute, since they are written as they are."""
    ids = formula_ids(table) if path.suffix == ".csv" else []
    if ids:
        print(
            f"{len(ids):,} ids begin like a formula, such as {ids[0]!r}, and stand in {path} as"
            " they are: a spreadsheet computes them. Write an .xlsx to open it in one",
            file=sys.stderr,
        )


def _report_promise(table: pd.DataFrame, options: argparse.Namespace, users: Iterable[str]) -> None:
    """Say how many shoppers could not get what was promised."""
    n = options.new_items
    short = lacking(table, users, n)
    of_all = f"{short:,} of {pd.Index(users).nunique():,} shoppers"
    print(f"At least {n} of {options.k} items new to the shopper: not so for {of_all}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m recsys_utils.lists",
        description="Everybody's recommendations in one file. The price of an item is the median of"
        f" its lines of the last {RECENT_DAYS} days before the last receipt, or of its newest line"
        " where it was not sold since.",
    )
    option = parser.add_argument
    option("--dataset", required=True, metavar="NAME|FILE.toml")
    option(
        "--out",
        type=Path,
        default=Path("recommendations.csv"),
        help=f".csv, .xlsx or .parquet; {TO_OPEN}",
    )
    option("--users", metavar="FILE|ID,ID", help="only these: a column user_id, or ids")
    option("-k", type=int, default=10, help="items for each shopper, at most (default 10)")
    option("--model", help="a model of the leaderboard (default: its best one)")
    option("--new-only", action="store_true", help="nothing that the shopper bought before")
    option(
        "--new-items", type=int, default=0, metavar="N", help="at least N items of each list new"
    )
    option("--min-score", type=float, help="leave out items below this score of the model")
    return parser


def _check(k: int, new_items: int, new_only: bool, min_score: float | None) -> None:
    """Refuse what contradicts itself."""
    if k < 1:
        raise LabError(f"-k {k}: take 1 or more items for each shopper")
    if not 0 <= new_items <= k:
        raise LabError(f"--new-items {new_items}: of {k} items between 0 and {k} can be new")
    if new_items and new_only:
        raise LabError("--new-only lists nothing but new items: leave --new-items out")
    if new_items and min_score is not None:
        raise LabError("--min-score is of one model, --new-items mixes two: take one of them")


def _users(given: str | None) -> list[str] | None:
    """Ids of a file's column user_id, or those that stand in the option itself."""
    if given is None:
        return None
    path = Path(given)
    if path.suffix in SUFFIXES:
        table = read_rows(path)
        need_columns(table, ("user_id",), path)
        users = ids_of(table["user_id"], path).tolist()
    else:
        users = [user.strip() for user in given.split(",")]
    if not all(users) or not users:
        raise LabError(f"--users {given} names an empty id: take it out")
    return users


def _fitted(dataset: str, data: tables.Tables, model: str | None) -> tuple[str, Recommender]:
    """The name and the model, with the parameters that its run recorded; not fitted yet."""
    cure = f"run ./run_all.sh --dataset {dataset} first, or take --model {WITHOUT_RUN}"
    fold = load_fold(dataset) if has_folds(data.spec.name) else None
    if fold is None or not has_runs(fold):
        if model == WITHOUT_RUN:
            return model, OwnPurchases()
        raise LabError(f"no run says which model is best for '{data.spec.name}': {cure}")
    metas = load_metas(fold)
    name = model or _chosen(fold)
    if name not in metas.index:
        raise LabError(f"--model {name} has no run: there are {', '.join(metas.index)}")
    made_by = metas.loc[name, "made_by"]
    if not made_by:
        again = ", ".join(metas.index[metas["made_by"] != ""])
        raise LabError(
            f"the lists of {name} come from several models or from part of the catalogue, so it"
            f" cannot be fitted again here: take --model with one of {again}"
        )
    return name, recorded_model(made_by, metas.loc[name, "params"], f"the run of {name}")


def _by_profile(
    dataset: str, data: tables.Tables, name: str, fitted: Recommender, clients: pd.DataFrame, k: int
) -> pd.DataFrame:
    """Lists of those clients without a receipt whose attributes tell something.

    By the fitted model; by one whose parameters a run chose where that one learnt no attributes.
    """
    if len(clients) and not fitted.learns_attributes and _has_run(dataset, data, BY_ATTRIBUTES):
        name, fitted = _fitted(dataset, data, BY_ATTRIBUTES)
        fitted.fit(data.interactions())
    told = clients[fitted.told(clients)]
    return (
        fitted.recommend(told.index, k, profiles=told).astype({"user_id": str}).assign(model=name)
    )


def _has_run(dataset: str, data: tables.Tables, name: str) -> bool:
    """Whether a notebook recorded a model for the newest cut of a data set."""
    fold = load_fold(dataset) if has_folds(data.spec.name) else None
    return fold is not None and has_runs(fold) and name in load_metas(fold).index


def _discoveries(
    dataset: str,
    data: tables.Tables,
    name: str,
    fitted: Recommender,
    users: list[str],
    depth: int,
) -> pd.DataFrame:
    """Lists of what the users never bought, by the model for that; by the fitted one without it."""
    if not _has_run(dataset, data, NEW_FOR_YOU):
        told = f"{NEW_FOR_YOU} has no run, so {name} chose the new items too"
        print(f"{told}: run ./run_all.sh --dataset {dataset} for its own", file=sys.stderr)
    elif name != NEW_FOR_YOU:
        name, fitted = _fitted(dataset, data, NEW_FOR_YOU)
        fitted.fit(data.interactions())
    return fitted.recommend(users, depth, "bought").assign(model=name)


def _promised(
    best: pd.DataFrame, new: pd.DataFrame, receipts: Interactions, n: int, k: int
) -> pd.DataFrame:
    """Mixed lists, each item with the model that chose it."""
    pair = ["user_id", "item_id"]
    chose = pd.concat([best, new]).astype(dict.fromkeys(pair, str)).drop_duplicates(pair)
    return with_new(best, new, receipts, n, k).merge(chose[[*pair, "model"]], "left", on=pair)


def _chosen(fold: Fold) -> str:
    """The model that the report ships."""
    judged = judge_fold(fold)
    # The leaderboard takes half a minute, and is asked only where validation does not choose.
    return judged.choice.model if judged.choice else shipped(judged.board, None)


def _described(recs: pd.DataFrame, receipts: Interactions, dated: bool) -> pd.DataFrame:
    """Lists with what people read: name, price, reason, last day bought."""
    item = codes(recs["item_id"], receipts.item_ids)
    user = codes(recs["user_id"], receipts.user_ids)
    names = receipts.items.get("name", None)
    table = recs[["user_id", "rank", "item_id", "score", "model"]].astype(
        {"item_id": str, "user_id": str}
    )
    table["name"] = "" if names is None else names.fillna("").astype(str).to_numpy()[item]
    table["price"] = _to_cents(current_prices(receipts, dated))[item]
    pairs = receipts.purchases.groupby(["user_id", "item_id"], observed=True)
    bought = pairs.agg(times=("basket_id", "nunique"), last=("ts", "max")).reset_index()
    bought = bought.astype({"user_id": str, "item_id": str})
    table = table.merge(bought, "left", on=["user_id", "item_id"])
    day = table["last"].dt.strftime("%Y-%m-%d") if dated else pd.Series(pd.NA, table.index)
    table["last_bought"] = day
    lately = receipts.recent[item] if dated else np.zeros(len(item), int)
    table["reason"] = _reasons(table["times"], day, user, lately)
    return table.sort_values(["user_id", "rank"], ignore_index=True)


def _to_cents(prices: np.ndarray) -> np.ndarray:
    """Prices to two decimals; below 0.1, where these would say little or 0, to six digits."""
    cheap = [float(f"{price:.6g}") for price in prices]
    return np.where(prices >= 0.1, prices.round(2), cheap)


def _reasons(times: pd.Series, day: pd.Series, user: np.ndarray, lately: np.ndarray) -> np.ndarray:
    """Why an item stands in a list, from the receipts alone.

    times, day: how often the shopper bought it, and when last; missing if never. user: code, −1 for
    a stranger. lately: lines of the item in the last 28 days, 0 where there are no dates.
    """
    often = pd.Series(times.fillna(0).astype(int).astype(str) + " times").where(times != 1, "once")
    when = (", last on " + day.astype("string")).fillna("")
    buyers = pd.Series(lately, times.index).map("{:,}".format).astype(str)
    selling = ("; sold in these four weeks: " + buyers).where(lately > 0, "")
    reason = (f"{BOUGHT} " + often + when).where(times.notna(), "New for you" + selling)
    return reason.where(user >= 0, STRANGER).to_numpy()


if __name__ == "__main__":
    sys.exit(main())
