"""A test in the shop: how many shoppers it takes to see a lead, from the shop's own spending."""

import numpy as np
import pandas as pd
from scipy.stats import norm

ALPHA = 0.05
POWER = 0.8
WEEKS = (3, 6, 12)
ACTIVE_WEEKS = 12  # who bought in so many weeks before a test takes part in it
CAP = 0.99  # quantile of the shoppers' spending


def shoppers_needed(sd: float, effect: float, alpha: float = ALPHA, power: float = POWER) -> float:
    """Shoppers of both arms together that a 50/50 test needs to see an effect on a mean.

    sd: standard deviation between shoppers. effect: true difference of the arms' means. A two-sided
    test at `alpha` then finds it with probability `power`: 4 sd² (z + z')² / effect².

    >>> round(shoppers_needed(sd=1, effect=0.1))
    3140
    """
    if effect == 0:
        return float("inf")
    return float((2 * sd * _both_quantiles(alpha, power) / effect) ** 2)


def smallest_lead(sd: float, shoppers: float, alpha: float = ALPHA, power: float = POWER) -> float:
    """The smallest difference of means that a 50/50 test of so many shoppers finds.

    >>> round(smallest_lead(sd=1, shoppers=3140), 3)
    0.1
    """
    return float(2 * sd * _both_quantiles(alpha, power) / np.sqrt(shoppers))


def capped(values: np.ndarray, cap: float = CAP) -> np.ndarray:
    """Values cut at their quantile `cap` over the last axis, of both arms together.

    Those below 0, such as refunds, are cut at the quantile 1 - cap too.

    >>> capped(np.array([-900.0, -1.0, 0.0, 2.0, 800.0]), cap=0.75).tolist()
    [-1.0, -1.0, 0.0, 2.0, 2.0]
    """
    low, high = np.quantile(values, [1 - cap, cap], axis=-1, keepdims=True)
    return np.clip(values, np.minimum(low, 0), high)


def spending_tests(
    purchases: pd.DataFrame, weeks: tuple[float, ...] = WEEKS, cap: float = CAP
) -> pd.DataFrame:
    """What tests of spending could show, had they run in the last weeks of the receipts.

    Args:
        purchases: user_id, ts, quantity, price.
        weeks: lengths of the tests.
        cap: quantile of spending above which it is cut.

    A row for each length that the receipts hold twice: weeks, shoppers (who bought in the 12 weeks
    before), mean (of their spending, those who bought nothing count as 0), capped_mean, and the
    standard deviations plain, capped and cuped: capped, and freed of what the spending of as many
    weeks before tells (Deng et al. 2013).
    """
    money = (purchases["quantity"] * purchases["price"]).to_numpy(float)
    return _tests(purchases, money, weeks, cap)


def first_purchase_tests(
    purchases: pd.DataFrame, weeks: tuple[float, ...] = WEEKS, cap: float = CAP
) -> pd.DataFrame:
    """Like `spending_tests`, of how many items a shopper buys that they never bought before.

    purchases: user_id, item_id, ts. The first receipts of all are new by this measure.
    """
    purchases = purchases.reset_index(drop=True)
    pairs = purchases[["user_id", "item_id", "ts"]].sort_values("ts", kind="stable")
    is_first = ~pairs.duplicated(["user_id", "item_id"]).sort_index()
    return _tests(purchases, is_first.to_numpy(float), weeks, cap)


def _tests(
    purchases: pd.DataFrame, money: np.ndarray, weeks: tuple[float, ...], cap: float
) -> pd.DataFrame:
    """Spread of a sum over lines between shoppers, for every length of a test."""
    user = purchases["user_id"].astype(str)
    end = purchases["ts"].max().normalize() + pd.Timedelta(days=1)
    first = purchases["ts"].min()
    rows = []
    for length in weeks:
        start = end - pd.Timedelta(weeks=length)
        before = start - pd.Timedelta(weeks=length)
        active = start - pd.Timedelta(weeks=max(ACTIVE_WEEKS, length))
        if before < first:
            break
        is_before = (purchases["ts"] < start).to_numpy()
        takes_part = user[is_before & (purchases["ts"] >= active).to_numpy()].unique()
        during = _sums(money, user, ~is_before, takes_part)
        earlier = _sums(money, user, is_before & (purchases["ts"] >= before), takes_part)
        if len(takes_part) > 1:
            rows.append({"weeks": length, **_spread(during, earlier, cap)})
    columns = ["weeks", "shoppers", "mean", "capped_mean", "plain", "capped", "cuped"]
    return pd.DataFrame(rows, columns=columns)


def _sums(money: np.ndarray, user: pd.Series, rows: np.ndarray, users: np.ndarray) -> np.ndarray:
    """Money of some rows by shopper, in the order of `users`; 0 without a row."""
    totals = pd.Series(money[rows]).groupby(user[rows].to_numpy()).sum()
    return totals.reindex(users, fill_value=0.0).to_numpy()


def _spread(during: np.ndarray, earlier: np.ndarray, cap: float) -> dict[str, float]:
    cut = capped(during, cap)
    covariate = capped(earlier, cap)
    unexplained = 1.0
    if cut.std() > 0 and covariate.std() > 0:
        unexplained = 1 - np.corrcoef(cut, covariate)[0, 1] ** 2
    return {
        "shoppers": len(during),
        "mean": during.mean(),
        "capped_mean": cut.mean(),
        "plain": during.std(ddof=1),
        "capped": cut.std(ddof=1),
        "cuped": cut.std(ddof=1) * np.sqrt(unexplained),
    }


def _both_quantiles(alpha: float, power: float) -> float:
    return norm.ppf(1 - alpha / 2) + norm.ppf(power)
