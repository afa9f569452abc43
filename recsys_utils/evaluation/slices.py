"""Slices of the evaluation: which purchases count (scopes) and whose (groups of users)."""

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from recsys_utils.data.interactions import Interactions, codes

if TYPE_CHECKING:
    from recsys_utils.data.folds import Stage

HISTORY_LENGTHS = ((1, 1), (2, 4), (5, 9), (10, 24), (25, None))  # baskets before the test window
ATTRIBUTES = ("segment", "country")
LARGEST_GROUPS = 8  # of an attribute's values
SMALLEST_GROUP = 20  # users
# Where a stratum of the catalogue ends, as a share of the purchases before the cut.
STRATA = {"head": 0.5, "middle": 0.8, "tail": 1.0}
HEAVY = 5  # purchased products of the prefiltered catalogue that make a user "heavy"


def warm(rows: pd.DataFrame, history: Interactions) -> pd.DataFrame:
    """Rows (of truth or of recommendations) whose user has a history."""
    return rows[codes(rows["user_id"], history.user_ids) >= 0]


def bought_before(pairs: pd.DataFrame, history: Interactions) -> np.ndarray:
    """(rows,) bool: whether each row's user_id bought its item_id in the history."""
    user = codes(pairs["user_id"], history.user_ids)
    item = codes(pairs["item_id"], history.item_ids)
    known = (user >= 0) & (item >= 0)
    result = np.zeros(len(pairs), bool)
    if known.any():
        result[known] = np.asarray(history.seen[user[known], item[known]]).ravel() > 0
    return result


def inside(pairs: pd.DataFrame, catalogue: pd.Index) -> np.ndarray:
    """(rows,) bool: whether each row's item_id is in a catalogue."""
    return codes(pairs["item_id"], catalogue) >= 0


def popularity_strata(history: Interactions) -> np.ndarray:
    """(items,) the stratum of each item, by the receipt lines it had before the cut.

    Items stand in the order of their lines, equal ones in that of the catalogue. head: those that
    make the first half of all lines · middle: those up to 80 % · tail: the rest, and what nobody
    had bought. The item that crosses a border is on its near side.
    """
    lines = np.bincount(history.item, minlength=history.shape[1])
    order = np.argsort(-lines, kind="stable")
    share_before = (np.cumsum(lines[order]) - lines[order]) / lines.sum()
    ends = list(STRATA.values())[:-1]
    strata = np.empty(len(lines), dtype=object)
    strata[order] = np.array(list(STRATA), object)[np.searchsorted(ends, share_before, "right")]
    return strata


def scopes(
    truth: pd.DataFrame, history: Interactions, catalogue: pd.Index | None = None
) -> dict[str, pd.DataFrame]:
    """The truth by what counts; scopes without a row are left out.

    any: every purchase · repeat: what the user had bought before · new: what they had not
    cold items: what the shop lists but nobody had bought · prefiltered: what `catalogue` holds
    head, middle, tail: by the popularity of the item, as `popularity_strata` says; an item that is
    new to the shop is of the tail.
    """
    repeat = bought_before(truth, history)
    unsold = history.item_ids[~history.sold]
    parts = {
        "any": truth,
        "repeat": truth[repeat],
        "new": truth[~repeat],
        "cold items": truth[inside(truth, unsold)],
    }
    if catalogue is not None:
        parts["prefiltered"] = truth[inside(truth, catalogue)]
    item = codes(truth["item_id"], history.item_ids)
    strata = np.where(item >= 0, popularity_strata(history)[item], "tail")
    parts |= {stratum: truth[strata == stratum] for stratum in STRATA}
    return {scope: rows for scope, rows in parts.items() if len(rows)}


def restrict(
    recs: pd.DataFrame, scope: str, history: Interactions, catalogue: pd.Index | None = None
) -> pd.DataFrame:
    """Lists with only what counts in a scope, ranked from 1 again; scopes as in `scopes`.

    In the strata of popularity lists stay as they are: shoppers do not ask for a list of rarities,
    the question is what the one list that they see finds among them.
    """
    if scope == "any" or scope in STRATA:
        return recs
    if scope == "prefiltered":
        kept = inside(recs, catalogue)
    elif scope == "cold items":
        kept = inside(recs, history.item_ids[~history.sold])
    else:
        kept = bought_before(recs, history) == (scope == "repeat")
    recs = recs[kept].sort_values(["user_id", "rank"])
    return recs.assign(rank=recs.groupby("user_id", observed=True).cumcount() + 1)


def user_groups(stage: "Stage", catalogue: pd.Index | None = None) -> dict[str, pd.Index]:
    """Users of a stage by name of group; empty groups are left out.

    warm, cold: with and without a purchase before. "history: 2 to 4": by number of baskets before.
    "segment: …", "country: …": the eight largest of at least 20 users, where users have them.
    heavy: warm, with at least five distinct purchases that `catalogue` holds.
    """
    users = stage.users
    known = stage.history.user_ids.get_indexer(users)
    groups = {"warm": users[known >= 0], "cold": users[known < 0]}
    groups |= _history_groups(stage, known)
    for column in ATTRIBUTES:
        if column in stage.history.users:
            groups |= _attribute_groups(stage, column)
    if catalogue is not None:
        inner_truth = stage.truth[inside(stage.truth, catalogue)]
        items = inner_truth.groupby("user_id", observed=True)["item_id"].nunique()
        many = items.reindex(users).fillna(0) >= HEAVY
        groups["heavy"] = users[many.to_numpy() & (known >= 0)]
    return {name: members for name, members in groups.items() if len(members)}


def _history_groups(stage: "Stage", known: np.ndarray) -> dict[str, pd.Index]:
    history = stage.history
    baskets = history.purchases.groupby(history.user)["basket_id"].nunique()
    baskets = baskets.reindex(known).to_numpy()
    groups = {}
    for low, high in HISTORY_LENGTHS:
        if high is None:
            length = f"{low} or more"
        elif low == high:
            length = f"{low}"
        else:
            length = f"{low} to {high}"
        member = (baskets >= low) & (baskets <= (high or np.inf))
        groups[f"history: {length}"] = stage.users[member]
    return groups


def _attribute_groups(stage: "Stage", column: str) -> dict[str, pd.Index]:
    values = stage.history.users[column].reindex(stage.users).astype("object")
    sizes = values.value_counts().head(LARGEST_GROUPS)
    groups = {}
    for value in sizes.index[sizes >= SMALLEST_GROUP]:
        groups[f"{column}: {value}"] = stage.users[(values == value).to_numpy()]
    return groups
