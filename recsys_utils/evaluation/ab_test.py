"""A test in the shop: which shopper sees which list, and what the spending of both halves tells.

Intervals hold however often one looks, so a test may be read every morning and ended at any time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import pandas as pd
from scipy.special import betaln
from scipy.stats import norm

from recsys_utils import LabError
from recsys_utils.evaluation.experiment import ALPHA, CAP, capped

NEW = "new"
TODAY = "today"
ARMS = (NEW, TODAY)
PLANNED = 1000  # shoppers at which the interval is narrowest, where nobody says it
LEAST = 100  # shoppers of an arm: with fewer the normal approximation is not to be trusted
SURE_OF_RATIO = 0.01  # p below which the arms' sizes are not those that were drawn
SURE_OF_BEFORE = 0.001  # p below which the arms differed before the test by more than chance
SAME = 0.99  # correlation above which the weeks before are the weeks of the test
MANY = 30  # amounts: counts that take fewer values are often equal by chance
PRIOR_OF_RATIO = 1000.0
HASH_BITS = 32


@dataclass(frozen=True)
class Reading:
    """What a test says so far.

    measure: the column that decides. new, today: shoppers of the arms. rows: the lead of the new
    list per shopper as read plainly, with large values cut, and freed of what the weeks before
    tell; the last row decides. limit: above which values are cut. lowest: below which those under 0
    are cut, None where there are none. ratio_p: how well the arms' sizes fit the planned share.
    before_p: how well the arms' weeks before fit each other, None without these; where they do not,
    nothing is freed of them. only_buyers: whether nobody's measure is 0.
    """

    measure: str
    new: int
    today: int
    rows: pd.DataFrame
    limit: float
    lowest: float | None
    ratio_p: float
    before_p: float | None = None
    only_buyers: bool = False

    @property
    def before_differs(self) -> bool:
        """Whether the arms differed before the test by more than chance."""
        return self.before_p is not None and self.before_p < SURE_OF_BEFORE

    @property
    def verdict(self) -> str:
        """One of "unreadable", "too few", "better", "worse" and "cannot tell"."""
        low, high = self.rows.iloc[-1][["low", "high"]]
        if self.ratio_p < SURE_OF_RATIO:
            return "unreadable"
        if min(self.new, self.today) < LEAST:
            return "too few"
        if low > 0:
            return "better"
        return "worse" if high < 0 else "cannot tell"


def arms(users: Iterable[str], salt: str, share: float = 0.5) -> np.ndarray:
    """The arm of each shopper, "new" or "today": the same whenever and wherever it is asked for.

    The first 8 hexadecimal digits of SHA-256 of the UTF-8 text `salt:user_id`, as a number, over
    2^32; below `share` a shopper sees the new list. Another salt draws other arms.

    >>> arms(["ann", "bob", "eve", "joe"], salt="spring").tolist()
    ['today', 'new', 'today', 'new']
    """
    _check_share(share)
    digits = [sha256(f"{salt}:{user}".encode()).hexdigest()[: HASH_BITS // 4] for user in users]
    points = np.array([int(text, 16) for text in digits], float) / 2**HASH_BITS
    return np.where(points < share, NEW, TODAY)


def critical_value(shoppers: float, planned: float = PLANNED, alpha: float = ALPHA) -> float:
    """Standard errors to both sides of a mean, so that the interval holds at all looks together.

    shoppers: of both arms, so far. planned: at which it is narrowest; choose it before the test.
    The asymptotic confidence sequence of Waudby-Smith et al. (2024), "Time-uniform central limit
    theory and asymptotic confidence sequences", Annals of Statistics 52. With x = shoppers · rho²:
    sqrt((1 + 1/x) · log((1 + x) / alpha²)). Reading once, at the end, would take 1.96.

    >>> round(critical_value(1000, planned=1000), 2)
    3.04
    """
    best = -2 * np.log(alpha) + np.log(1 - 2 * np.log(alpha))
    x = best * shoppers / planned
    return float(np.sqrt((1 + 1 / x) * (np.log1p(x) - 2 * np.log(alpha))))


def lead(
    values: np.ndarray, is_new: np.ndarray, before: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Difference of the arms' means over the last axis, and its standard error.

    Args:
        values: (…, shoppers). is_new: (shoppers,).
        before: like values, of a time before the test. What it tells of a shopper is taken away,
            by the slope within the arms (CUPED, Deng et al. 2013).

    >>> is_new = np.array([True, True, False, False])
    >>> difference, error = lead(np.array([3.0, 5.0, 1.0, 3.0]), is_new)
    >>> float(difference), round(float(error), 3)
    (2.0, 1.414)
    """
    if before is not None:
        values = values - _slope(values, before, is_new) * before
    new, today = values[..., is_new], values[..., ~is_new]
    difference = new.mean(axis=-1) - today.mean(axis=-1)
    of_new = new.var(axis=-1, ddof=1) / new.shape[-1]
    of_today = today.var(axis=-1, ddof=1) / today.shape[-1]
    return difference, np.sqrt(of_new + of_today)


def ratio_p(new: int, today: int, share: float = 0.5) -> float:
    """How well the arms' sizes fit the planned share, at all looks together; small: they do not.

    One over the Bayes factor of any share, around the planned one, against the planned one
    (Lindon and Malek 2022, "Anytime-valid inference for multinomial count data").

    >>> ratio_p(5000, 5050) > 0.5, ratio_p(5000, 6000) < 1e-6
    (True, True)
    """
    a = PRIOR_OF_RATIO * share
    b = PRIOR_OF_RATIO - a
    log_any = betaln(a + new, b + today) - betaln(a, b)
    log_planned = new * np.log(share) + today * np.log1p(-share)
    return float(np.exp(min(0.0, log_planned - log_any)))


def read(
    table: pd.DataFrame,
    measure: str = "spend",
    planned: float = PLANNED,
    share: float = 0.5,
    cap: float = CAP,
) -> Reading:
    """What a test says so far, of a table with user_id, arm, a measure and maybe <measure>_before.

    Every shopper of the split has one row, also who bought nothing. planned, share, cap: as they
    were chosen before the test.
    Raises LabError for an arm with less than two shoppers, a share that is not between 0 and 1, a
    cap that is not above 0.5 and up to 1, and weeks before that are those of the test.
    """
    _check_share(share)
    if not 0.5 < cap <= 1:
        raise LabError(f"cap {cap:g}: take a quantile above 0.5 and up to 1, such as {CAP:g}")
    is_new = (table["arm"] == NEW).to_numpy()
    new, today = int(is_new.sum()), int((~is_new).sum())
    if min(new, today) < 2:
        raise LabError(f"{new} shoppers saw the new list and {today} today's: both arms need 2")
    values = table[measure].to_numpy(float)
    cut = capped(values, cap)
    readings = {"plain": lead(values, is_new), "capped": lead(cut, is_new)}
    before_p = None
    if f"{measure}_before" in table:
        before = table[f"{measure}_before"].to_numpy(float)
        _refuse_same(values, before, measure)
        before = capped(before, cap)
        before_p = _difference_p(before, is_new)
        if before_p >= SURE_OF_BEFORE and len(np.unique(before)) > 1:
            readings["cuped"] = lead(cut, is_new, before)
    means = {name: cut[~is_new].mean() for name in readings} | {"plain": values[~is_new].mean()}
    frame = _intervals(readings, means, critical_value(new + today, planned))
    lowest = float(cut.min()) if values.min() < 0 else None
    fits = ratio_p(new, today, share)
    limit = float(cut.max())
    only_buyers = bool((values != 0).all())
    return Reading(measure, new, today, frame, limit, lowest, fits, before_p, only_buyers)


def _intervals(
    readings: dict[str, tuple[float, float]], means: dict[str, float], reach: float
) -> pd.DataFrame:
    """A row for each reading: today's mean, the lead and the ends of its interval."""
    rows = []
    for name, (difference, error) in readings.items():
        row = {"reading": name, "today": means[name], "lead": difference}
        rows.append(row | {"low": difference - reach * error, "high": difference + reach * error})
    return pd.DataFrame(rows).astype(dict.fromkeys(["today", "lead", "low", "high"], float))


def _check_share(share: float) -> None:
    if not 0 < share < 1:
        raise LabError(f"share {share:g}: take a number between 0 and 1, such as 0.5")


def _refuse_same(values: np.ndarray, before: np.ndarray, measure: str) -> None:
    """LabError for weeks before that are those of the test: they would explain the lead away."""
    bought = values > 0
    equal = np.isclose(values[bought], before[bought])
    is_copy = equal.sum() > 0.5 * len(equal) and len(np.unique(values[bought])) > MANY
    cut, cut_before = capped(values), capped(before)
    varies = cut.std() > 0 and cut_before.std() > 0
    if is_copy or (varies and np.corrcoef(cut, cut_before)[0, 1] > SAME):
        raise LabError(
            f"{measure}_before is {measure} itself, or nearly so for most shoppers: it must hold"
            " the weeks before the test only. Export it again up to the day before the test, or"
            " leave the column out"
        )


def _difference_p(values: np.ndarray, is_new: np.ndarray) -> float:
    """How likely a random split makes the arms' means differ as much."""
    difference, error = lead(values, is_new)
    if error == 0:
        return float(difference == 0)
    return float(2 * norm.sf(abs(difference) / error))


def _slope(values: np.ndarray, before: np.ndarray, is_new: np.ndarray) -> np.ndarray:
    """Least squares of values on before, within the arms; 0 where before is always the same."""
    together = np.zeros(np.broadcast_shapes(values.shape, before.shape)[:-1])
    spread = np.zeros(before.shape[:-1])
    for arm in (is_new, ~is_new):
        centred = before[..., arm] - before[..., arm].mean(axis=-1, keepdims=True)
        together = together + (centred * values[..., arm]).sum(axis=-1)
        spread = spread + (centred**2).sum(axis=-1)
    slope = np.divide(together, spread, out=np.zeros_like(together), where=spread > 0)
    return slope[..., None]
