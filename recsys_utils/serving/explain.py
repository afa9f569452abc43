"""Why an item stands where it does in a user's list: the shares of the score, the rules, the neighbours in the history."""

import numpy as np
import pandas as pd

from recsys_utils.ensembles.business_rules import GRAIN, adjusted, in_force, price_limits
from recsys_utils.ensembles.hybrid import MODELS, PARTS, mean_price
from recsys_utils.serving.artifacts import Artifacts
from recsys_utils.serving.lists import Ask, made

DEEP = 200  # places looked at
NEIGHBOURS = 5


def explained(art: Artifacts, ask: Ask, item: int, since: pd.DataFrame | None) -> dict:
    """The fields of an Explanation for one item by code."""
    listing = made(art, ask, since)
    at = np.flatnonzero(listing.item == item)
    place = int(at[0]) if len(at) else None
    parts, rules = _parts(art, ask, item, since) if ask.model in MODELS else ([], [])
    out = next(
        (rule["effect"] for rule in rules if rule["effect"].startswith("left out")),
        f"Not among the first {DEEP}",
    )
    return {
        "user_id": ask.user_id,
        "item_id": art.items.index[item],
        "item_name": art.names[item],
        "model": listing.primary,
        "rank": None if place is None else place + 1,
        "relevance_score": None if place is None else float(listing.relevance[place]),
        "score": None if place is None else float(listing.score[place]),
        "recommendation_reason": out[0].upper() + out[1:]
        if place is None
        else listing.reason[place],
        "parts": parts,
        "rules": rules,
        "neighbours": _neighbours(art, ask, item, since),
    }


def _parts(
    art: Artifacts, ask: Ask, item: int, since: pd.DataFrame | None
) -> tuple[list[dict], list[dict]]:
    """Each model's share in the hybrid's score of an item, and what every rule does to it."""
    model = art.hybrid
    lines, days, price = model.lines(ask.user_id, ask.as_of, since)
    parts, share = model.shares(ask.user_id, ask.model, lines, days)
    shown = [
        {
            "model": name,
            "weight": float(share[m, 0]),
            "contribution": float(parts[m, 0, item]),
            "score": float(parts[m, 0, item] / share[m, 0]) if share[m, 0] else 0.0,
        }
        for m, name in enumerate(PARTS)
    ]
    return shown, _rules(
        art, item, mean_price(price), float(parts[:, 0, item].sum()), model.since(lines, days)[item]
    )


def _rules(art: Artifacts, item: int, mean: float, blend: float, ago: float) -> list[dict]:
    model, price = art.hybrid, art.hybrid.price_[item]
    limit = price_limits(np.array([mean]), model.bounds_, model.knobs)[0]
    dear = price > limit * GRAIN
    gain = float(
        adjusted(np.array([blend]), np.array([price]), np.array([mean]), model.knobs)[0] - blend
    )
    cap = f"{'left out: ' * bool(dear)}price {price:.2f} is {'above' if dear else 'within'} the limit of {limit:.2f}"
    cap = cap if np.isfinite(limit) else "no limit"
    effects = {
        "user_segments": cap,
        "price_sensitivity": cap,
        "upsell": f"changes the score by {gain:+.3f}",
        "repurchase_cycle": _cycle(model, item, ago),
    }
    return [
        {"rule": rule, "state": state, "effect": effects[rule] if state == "on" else state}
        for rule, state in in_force(model.price_, model.knobs).items()
    ]


def _cycle(model: object, item: int, ago: float) -> str:
    if np.isnan(ago):
        return "never bought"
    knobs, cycle = model.knobs.repurchase_cycle, model.cycle_[item]
    back = knobs.exclusion_factor * (knobs.default_cycle_days if np.isnan(cycle) else cycle)
    return f"{'left out: ' * bool(ago < back)}bought {ago:.0f} days ago, back {back:.0f} days after a purchase"


def _neighbours(art: Artifacts, ask: Ask, item: int, since: pd.DataFrame | None) -> list[dict]:
    """The items of the history that are most like this one."""
    mine = np.unique(art.hybrid.lines(ask.user_id, ask.as_of, since)[0])
    mine = mine[mine != item]
    alike = art.hybrid.similarity_[mine][:, [item]].toarray().ravel()
    best = [n for n in np.argsort(-alike, kind="stable")[:NEIGHBOURS] if alike[n] > 0]
    return [
        {
            "item_id": art.items.index[mine[n]],
            "item_name": art.names[mine[n]],
            "similarity": float(alike[n]),
        }
        for n in best
    ]
