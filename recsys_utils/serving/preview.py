"""Knobs tried on one shopper: both lists, and what the recorded study expects of each change."""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from recsys_utils.ensembles.rule_settings import DEFAULTS, Tuning, tuned
from recsys_utils.serving.answers import KnobChange, PreviewResponse
from recsys_utils.serving.lists import Query
from recsys_utils.serving.service import Loaded, compute_answer

# What the study calls a rule, and the value of it that a tuning has.
STUDIED: dict[str, Callable[[Tuning], str | float]] = {
    "Repurchase, × cycle": lambda knobs: (
        knobs.repurchase_cycle.exclusion_factor if knobs.repurchase_cycle.enabled else "off"
    ),
    "Upsell factor": lambda knobs: knobs.upsell.factor if knobs.upsell.enabled else 0.0,
    "Segment filter": lambda knobs: "on" if knobs.user_segments.enabled else "off",
    "Price cap, × mean price": lambda knobs: _tolerance(knobs, "cap"),
    "Price penalty, × mean price": lambda knobs: _tolerance(knobs, "penalty"),
    "Weight of ALS": lambda knobs: knobs.model_weights.als,
    "Weight of item-item": lambda knobs: knobs.model_weights.item_cf,
    "Weight of popularity": lambda knobs: knobs.model_weights.popularity,
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
    for rule, value_of in STUDIED.items():
        old, new = value_of(before), value_of(after)
        if old != new:
            yield _change(rule, old, new, costs)
    covered = {
        "repurchase_cycle.enabled",
        "repurchase_cycle.exclusion_factor",
        "upsell.enabled",
        "upsell.factor",
        "user_segments.enabled",
        "price_sensitivity.mode",
        "price_sensitivity.budget_tolerance",
        *(f"model_weights.{name}" for name in vars(before.model_weights)),
    }
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
