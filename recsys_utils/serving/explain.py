"""Why an item stands where it does in a user's list: score, rules, neighbours in the history."""

from dataclasses import replace

import numpy as np

from recsys_utils.ensembles.business_rules import GRAIN, adjusted, in_force, price_limits
from recsys_utils.ensembles.hybrid import MODELS, PARTS, Hybrid
from recsys_utils.serving.lists import Target, recommend

DEPTH = 200  # places looked at
NEIGHBOURS = 5


def explain_item(target: Target, item: int) -> dict:
    """The fields of an Explanation for one item by code."""
    artifacts = target.artifacts
    ranked = recommend(replace(target, query=replace(target.query, n=DEPTH)))
    places = np.flatnonzero(ranked.item == item)
    parts = []
    rules = []
    if target.query.model in MODELS:
        parts, rules = _parts_and_rules(target, item)
    explanation = {
        "user_id": target.query.user_id,
        "item_id": artifacts.items.index[item],
        "item_name": artifacts.names[item],
        "model": ranked.primary_model,
        "parts": parts,
        "rules": rules,
        "neighbours": _neighbours(target, item),
    }
    if not len(places):
        return explanation | {
            "rank": None,
            "relevance_score": None,
            "score": None,
            "recommendation_reason": _why_not_listed(rules),
        }
    place = int(places[0])
    relevance = float(ranked.relevance[place])
    return explanation | {
        "rank": place + 1,
        "relevance_score": None if np.isnan(relevance) else relevance,
        "score": float(ranked.score[place]),
        "recommendation_reason": ranked.reason[place],
    }


def _why_not_listed(rules: list[dict]) -> str:
    for rule in rules:
        if rule["effect"].startswith("left out"):
            effect = rule["effect"]
            return effect[0].upper() + effect[1:]
    return f"Not among the first {DEPTH}"


def _parts_and_rules(target: Target, item: int) -> tuple[list[dict], list[dict]]:
    """Each model's share in the hybrid's score of an item, and what every rule does to it."""
    hybrid = target.artifacts.hybrid
    shopper = target.shopper
    contributions, shares = hybrid.shares(shopper, target.query.model)
    parts = []
    for position, name in enumerate(PARTS):
        weight = float(shares[position, 0])
        contribution = float(contributions[position, 0, item])
        score = float(contributions[position, 0, item] / shares[position, 0]) if weight else 0.0
        parts.append(
            {"model": name, "weight": weight, "contribution": contribution, "score": score}
        )
    blend = float(contributions[:, 0, item].sum())
    days = shopper.days_since_purchase(len(target.artifacts.items))[item]
    return parts, _rules(hybrid, item, shopper.mean_price, blend, days)


def _rules(hybrid: Hybrid, item: int, mean_price: float, blend: float, days: float) -> list[dict]:
    """What every rule does to an item. blend: its score before the rules; days: since bought."""
    price = hybrid.price_[item]
    mean = np.array([mean_price])
    limit = price_limits(mean, hybrid.bounds_, hybrid.knobs)[0]
    score = adjusted(np.array([blend]), np.array([price]), mean, hybrid.knobs)[0]
    cap = _price_effect(price, limit)
    effects = {
        "user_segments": cap,
        "price_sensitivity": cap,
        "upsell": f"changes the score by {float(score - blend):+.3f}",
        "repurchase_cycle": _cycle_effect(hybrid, item, days),
    }
    return [
        {"rule": rule, "state": state, "effect": effects[rule] if state == "on" else state}
        for rule, state in in_force(hybrid.price_, hybrid.knobs).items()
    ]


def _price_effect(price: float, limit: float) -> str:
    if not np.isfinite(limit):
        return "no limit"
    if price > limit * GRAIN:
        return f"left out: price {price:.2f} is above the limit of {limit:.2f}"
    return f"price {price:.2f} is within the limit of {limit:.2f}"


def _cycle_effect(hybrid: Hybrid, item: int, days: float) -> str:
    if np.isnan(days):
        return "never bought"
    knobs = hybrid.knobs.repurchase_cycle
    cycle = hybrid.cycle_[item]
    back = knobs.exclusion_factor * (knobs.default_cycle_days if np.isnan(cycle) else cycle)
    text = f"bought {days:.0f} days ago, back {back:.0f} days after a purchase"
    return f"left out: {text}" if days < back else text


def _neighbours(target: Target, item: int) -> list[dict]:
    """The items of the history that are most like this one."""
    artifacts = target.artifacts
    bought = np.unique(target.shopper.items)
    bought = bought[bought != item]
    similarity = artifacts.hybrid.similarity[bought][:, [item]].toarray().ravel()
    nearest = np.argsort(-similarity, kind="stable")[:NEIGHBOURS]
    return [
        {
            "item_id": artifacts.items.index[bought[n]],
            "item_name": artifacts.names[bought[n]],
            "similarity": float(similarity[n]),
        }
        for n in nearest
        if similarity[n] > 0
    ]
