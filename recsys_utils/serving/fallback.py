"""Which model stood in for the one that was asked for, and why; what people decided of a list."""

import numpy as np

from recsys_utils.ensembles.hybrid import MODELS
from recsys_utils.ensembles.new_for_you import NEW_FOR_YOU
from recsys_utils.serving.arrange import SHOP, RankedList
from recsys_utils.serving.lists import TITLES, Target


def notes(target: Target, ranked: RankedList) -> list[str]:
    """Which model stood in for the one that was asked for, and why; what the shop decided."""
    told = []
    if ranked.fallback_used:
        asked, answered = TITLES[target.query.model], TITLES[ranked.primary_model]
        told.append(f"{asked} → {answered}: {_why(target)}.")
    pinned = ranked.source.count(SHOP)
    boosted = int(np.isin(ranked.item, target.wishes.boost).sum())
    for count, what in ((pinned, "picked"), (boosted, "moved up")):
        if count:
            told.append(f"{count} of {len(ranked.item)} were {what} by the shop.")
    return told + _promise(target, ranked)


def _promise(target: Target, ranked: RankedList) -> list[str]:
    """Remarks on the new items that were promised, none where all is as asked.

    Who chose them, where it is not the model made for it; how many there are, where they are too
    few.
    """
    wanted = target.query.new_items
    told = []
    if wanted and len(target.shopper.items) and target.new_by != NEW_FOR_YOU:
        is_trained = NEW_FOR_YOU in target.artifacts.lists
        why = "has no list for this shopper" if is_trained else "was not trained for this shop"
        told.append(f"{TITLES[NEW_FOR_YOU]} {why}: {TITLES[target.new_by]} chose what is new.")
    found = int((~target.is_bought[ranked.item]).sum())
    if found < wanted:
        told.append(f"Only {found} of the {_of(wanted, 'new product')} asked for fit.")
    return told


def tried(target: Target, ranked: RankedList) -> list[tuple[str, str]]:
    """The models that were tried in their order, and what each could say; empty without a fallback.

    A list that is too short after the filters is filled by popularity: that is told too.
    """
    asked = target.query.model
    sources = [source for source in ranked.source if source != SHOP]
    filled = sources.count("popularity")
    if not ranked.fallback_used:
        if asked in MODELS or not filled:
            return []
        own = len(sources) - filled
        return [(asked, f"{_of(own, 'product')} fit"), ("popularity", f"filled {filled} more")]
    chain = [(name, _why(target)) for name in _parts(asked, target)]
    how = "by attributes" if target.newcomer else "what sells most, for everybody"
    return [*chain, (ranked.primary_model, f"made the list: {how}")]


def _parts(model: str, target: Target) -> list[str]:
    """The models that have to know a shopper before a model can say anything of its own."""
    if model != "hybrid":
        return [model]
    weights = target.artifacts.hybrid.knobs.model_weights
    return [name for name in ("als", "item_cf") if getattr(weights, name)]


def _of(n: int, noun: str) -> str:
    return f"{n} {noun}{'s' * (n != 1)}"


def _why(target: Target) -> str:
    """Why the model that was asked for has no list of its own."""
    if target.newcomer:
        return "only attributes are known of this shopper: they decide"
    if target.user >= 0 and target.shopper.code < 0:
        return "this shopper had bought nothing by then"
    if target.query.user_id in target.artifacts.clients.index:
        return "this shopper has bought nothing yet"
    if target.shopper.code < 0:
        return "this shopper is unknown"
    return "it has no list for this shopper"
