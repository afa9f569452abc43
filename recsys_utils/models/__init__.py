"""One file per family, one protocol for all."""

from .base import REGISTRY, NotSupported, Recommender, load_model
from .factorization import ALS, BPR, EASE
from .item_cf import CoPurchase, ItemCF
from .lightfm import LightFM
from .main_recommender import MainRecommender
from .next_basket import TIFUKNN, UPCF
from .popularity import OwnPurchases, Popular
from .preference_pairs import PreferencePairs
from .progressive import Progressive
from .two_tower import TwoTower

__all__ = ["ALS", "BPR", "EASE", "REGISTRY", "TIFUKNN", "UPCF", "CoPurchase", "ItemCF",
           "LightFM", "MainRecommender", "NotSupported", "OwnPurchases", "Popular", "PreferencePairs",
           "Progressive", "Recommender", "TwoTower", "load_model"]
