"""Every model: one file per family, one protocol for all (`Recommender`).

`towers/` is a folder, because that model needs several files. A model is imported when its name is
first asked for, so that a service that only needs the two towers does not load implicit, LightFM
and LightGBM.
"""

from importlib import import_module

HOMES = {
    "ALS": "factorization",
    "BPR": "factorization",
    "EASE": "factorization",
    "NeighbourFinds": "first_purchases",
    "TakeUp": "first_purchases",
    "CoPurchase": "item_cf",
    "ItemCF": "item_cf",
    "LightFM": "lightfm",
    "MainRecommender": "main_recommender",
    "TIFUKNN": "next_basket",
    "UPCF": "next_basket",
    "OwnPurchases": "popularity",
    "Popular": "popularity",
    "PreferencePairs": "preference_pairs",
    "Progressive": "progressive",
    "TwoTower": "towers.two_tower",
    "NotSupported": "base",
    "REGISTRY": "base",
    "Recommender": "base",
    "load_model": "base",
}

__all__ = list(HOMES)


def __getattr__(name: str) -> object:
    """A model by name, imported at its first use (PEP 562)."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__} has no attribute '{name}'")
    return getattr(import_module(f"{__name__}.{HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
