"""Knobs tried on one shopper: both lists, and what the recorded study expects of each change."""

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from recsys_utils.ensembles.rule_settings import DEFAULTS, Tuning, tuned
from recsys_utils.serving.answers import KnobChange, PreviewResponse
from recsys_utils.serving.lists import Query
from recsys_utils.serving.service import Loaded, compute_answer


@dataclass(frozen=True)
class Rule:
    """A rule that the study varied: the value of it that a tuning has, and the knobs it is of."""

    value: Callable[[Tuning], str | float]
    knobs: tuple[str, ...]


PRICE = ("price_sensitivity.mode", "price_sensitivity.budget_tolerance")
# By what the study calls them.
STUDIED: dict[str, Rule] = {
    "Repurchase, × cycle": Rule(
        lambda knobs: (
            knobs.repurchase_cycle.exclusion_factor if knobs.repurchase_cycle.enabled else "off"
        ),
        ("repurchase_cycle.enabled", "repurchase_cycle.exclusion_factor"),
    ),
    "Upsell factor": Rule(
        lambda knobs: knobs.upsell.factor if knobs.upsell.enabled else 0.0,
        ("upsell.enabled", "upsell.factor"),
    ),
    "Segment filter": Rule(
        lambda knobs: "on" if knobs.user_segments.enabled else "off", ("user_segments.enabled",)
    ),
    "Price cap, × mean price": Rule(lambda knobs: _tolerance(knobs, "cap"), PRICE),
    "Price penalty, × mean price": Rule(lambda knobs: _tolerance(knobs, "penalty"), PRICE),
    "Weight of ALS": Rule(lambda knobs: knobs.model_weights.als, ("model_weights.als",)),
    "Weight of item-item": Rule(
        lambda knobs: knobs.model_weights.item_cf, ("model_weights.item_cf",)
    ),
    "Weight of popularity": Rule(
        lambda knobs: knobs.model_weights.popularity, ("model_weights.popularity",)
    ),
}
MEASURES = ("precision", "revenue_share")


def preview(now: Loaded, query: Query, changed: dict) -> PreviewResponse:
    """The hybrid's list for a query now and under changed knobs; LabError for bad knobs.

    changed: nested, what differs from the knobs in force.
    """
    knobs = now.art.hybrid.knobs
    values = merged(knobs.to_dict(), changed)
    wanted = tuned(values, "tuning")
    art = copy.copy(now.art)
    art.hybrid = now.art.hybrid.retuned(values)
    return PreviewResponse(
        before=compute_answer(now, query),
        after=compute_answer(Loaded(art, now.online, now.seconds), query),
        changes=list(_changes(knobs, wanted, now.art.costs)),
        study=None if now.art.costs is None else now.art.manifest.get("knob_costs"),
        toml=as_toml(wanted),
    )


def merged(values: dict, changed: dict) -> dict:
    """Nested values with some replaced; what is no table where one stands is left to the check."""
    result = dict(values)
    for key, value in changed.items():
        is_table = isinstance(value, dict) and isinstance(values.get(key), dict)
        result[key] = merged(values[key], value) if is_table else value
    return result


def as_toml(knobs: Tuning) -> str:
    """What differs from the defaults, as a TOML file that TUNING_PATH may name.

    >>> print(as_toml(tuned({"loyal_purchases": 5, "upsell": {"enabled": False}})))
    loyal_purchases = 5
    <BLANKLINE>
    [upsell]
    enabled = false
    """
    usual = DEFAULTS.to_dict()
    differs = {key: value for key, value in knobs.to_dict().items() if value != usual[key]}
    lines = [_line(k, v) for k, v in differs.items() if not isinstance(v, dict)]
    for name, table in differs.items():
        if isinstance(table, dict):
            lines += ["", f"[{name}]"]
            lines += [_line(k, v) for k, v in table.items() if v != usual[name][k]]
    return "\n".join(lines).strip()


def expected(costs: pd.DataFrame, rule: str, value: str | float) -> np.ndarray | None:
    """(2,) precision and share of spending that a study recorded for a value of a rule.

    Between two recorded numbers it is on the line between them, beyond the last it is the last's.
    None where the study has no such rule or value.
    """
    rows = costs[costs["knob"] == rule].reindex(columns=["value", *MEASURES])
    if not len(rows):
        return None
    same = rows[rows["value"] == (value if isinstance(value, str) else f"{value:g}")]
    if len(same):
        return same[list(MEASURES)].to_numpy(float)[0]
    number = pd.to_numeric(rows["value"], errors="coerce")
    if isinstance(value, str) or number.isna().all():
        return None
    if rule.startswith("Repurchase"):
        number = number.fillna(0)  # off: no part of the cycle
    recorded = rows.assign(value=number).dropna(subset=["value"]).sort_values("value")
    return np.array([np.interp(value, recorded["value"], recorded[name]) for name in MEASURES])


def _changes(before: Tuning, after: Tuning, costs: pd.DataFrame | None) -> Iterator[KnobChange]:
    """Each studied rule that differs, then every other knob that differs."""
    for name, rule in STUDIED.items():
        old = rule.value(before)
        new = rule.value(after)
        if old != new:
            yield _change(name, old, new, costs)
    covered = {knob for rule in STUDIED.values() for knob in rule.knobs}
    old = _leaves(before.to_dict())
    for knob, new in _leaves(after.to_dict()).items():
        if new != old[knob] and knob not in covered:
            yield KnobChange(
                knob=knob, before=old[knob], after=new, precision=None, revenue_share=None
            )


def _change(
    rule: str, old: str | float, new: str | float, costs: pd.DataFrame | None
) -> KnobChange:
    found = (None, None) if costs is None else [expected(costs, rule, v) for v in (old, new)]
    change = [None, None]
    if found[0] is not None and found[1] is not None:
        change = [None if np.isnan(x) else float(x) for x in found[1] - found[0]]
    return KnobChange(
        knob=rule, before=old, after=new, precision=change[0], revenue_share=change[1]
    )


def _tolerance(knobs: Tuning, mode: str) -> str | float:
    rule = knobs.price_sensitivity
    return rule.budget_tolerance if rule.mode == mode else "off"


def _leaves(tree: dict, before: str = "") -> dict:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    result = {}
    for key, value in tree.items():
        is_table = isinstance(value, dict)
        result |= _leaves(value, f"{before}{key}.") if is_table else {before + key: value}
    return result


def _line(key: str, value: object) -> str:
    if isinstance(value, bool):
        return f"{key} = {str(value).lower()}"
    if isinstance(value, list):
        return f"{key} = [{', '.join(map(_quoted, value))}]"
    return f"{key} = {_quoted(value) if isinstance(value, str) else value}"


def _quoted(text: str) -> str:
    inside = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{inside}"'
