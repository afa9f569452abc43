"""What the business rules cost, and which purchases they hide."""

from collections.abc import Mapping

import pandas as pd
from tqdm import tqdm

from recsys_utils.data.folds import Stage
from recsys_utils.data.interactions import distinct
from recsys_utils.ensembles.business_rules import Facts, rerank
from recsys_utils.ensembles.hybrid import Hybrid
from recsys_utils.ensembles.rule_settings import DEFAULTS, tuned
from recsys_utils.evaluation.metrics import beyond_accuracy, per_user
from recsys_utils.evaluation.slices import scopes, warm


def knob_costs(
    model: Hybrid, off: dict, knobs: Mapping[str, Mapping[str, dict]], stage: Stage, k: int = 5
) -> pd.DataFrame:
    """What a fitted model's lists are worth under each value of each knob, over warm users.

    off: the tuning without any rule. knobs: by name of a knob and label of a value, the sections
    of the tuning that change.

    Returns knob, value, precision and, where there are prices, revenue_share and mean_price.
    """
    truth = warm(stage.truth, stage.history)
    users = distinct(truth["user_id"])
    rows = []
    for name, values in tqdm(knobs.items(), desc="knobs", leave=False, disable=None):
        for label, change in values.items():
            recs = model.retuned(off | change).recommend(users, k, stage.exclude)
            mean = per_user(recs, truth, k).mean().reindex(["precision", "revenue_share"])
            price = beyond_accuracy(recs, stage.history, k).get("mean_price")
            rows.append({"knob": name, "value": label, **mean, "mean_price": price})
    return pd.DataFrame(rows).dropna(axis="columns", how="all")


def hidden_purchases(rules: Mapping[str, dict], stage: Stage) -> pd.DataFrame:
    """Share of what warm users then bought that rules would not have shown: rules × scopes.

    rules: by name the sections of the tuning. Scopes: any, repeat, new.
    """
    facts = Facts.of(stage.history)
    truths = scopes(warm(stage.truth, stage.history), stage.history)
    shares = {name: {} for name in rules}
    for scope in ("any", "repeat", "new"):
        if scope not in truths:
            continue
        pairs = truths[scope].drop_duplicates(["user_id", "item_id"]).assign(score=0.5)
        for name, rule in rules.items():
            shown = rerank(pairs, facts, tuned(rule))
            shares[name][scope] = 1 - len(shown) / len(pairs)
    return pd.DataFrame(shares).T


def rule_values(priced: bool) -> dict[str, dict[str, dict]]:
    """Values of each business rule to try, from off to strong: rule, label, settings.

    priced: whether receipts have prices; without them only the repurchase rule does anything.
    """
    repurchase = {"off": {}}
    for factor in (0.1, 0.2, 0.4, 0.8):
        repurchase[f"{factor:g}"] = {"repurchase_cycle": {"exclusion_factor": factor}}
    if not priced:
        return {"Repurchase, × cycle": repurchase} | weight_values()
    upsell = {f"{factor:g}": {"upsell": {"factor": factor}} for factor in (0, 0.1, 0.5, 1)}
    cap = {"off": {}}
    for tolerance in (3, 2, 1.5, 1.2):
        cap[f"{tolerance:g}"] = {"price_sensitivity": {"budget_tolerance": tolerance}}
    penalty = {"off": {}}
    for tolerance in (2.5, 2, 1.5):
        rule = {"mode": "penalty", "budget_tolerance": tolerance}
        penalty[f"{tolerance:g}"] = {"price_sensitivity": rule}
    return {
        "Repurchase, × cycle": repurchase,
        "Upsell factor": upsell,
        "Segment filter": {"off": {}, "on": {"user_segments": {}}},
        "Price cap, × mean price": cap,
        "Price penalty, × mean price": penalty,
    } | weight_values()


def weight_values() -> dict[str, dict[str, dict]]:
    """Weights of each part of the blend to try; the others keep their proportion to one another."""
    usual = vars(DEFAULTS.model_weights)
    names = {"als": "ALS", "item_cf": "item-item", "popularity": "popularity"}
    result = {}
    for part, name in names.items():
        rest = 1 - usual[part]
        values = {}
        for weight in dict.fromkeys((usual[part], 0, 0.2, 0.4, 0.6, 0.8, 1)):
            others = {each: share * (1 - weight) / rest for each, share in usual.items()}
            values[f"{weight:g}"] = {"model_weights": others | {part: weight}}
        result[f"Weight of {name}"] = values
    return result
