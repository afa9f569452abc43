"""What comes out, typed: every answer of the API."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from recsys_utils.serving.schemas import ShopTime

Share = Annotated[float, Field(ge=0, le=1)]
Stock = Literal["in_stock", "out_of_stock", "unknown"]


class Answer(BaseModel):
    """An answer."""

    model_config = ConfigDict(protected_namespaces=())


class Problem(Answer):
    """What went wrong, in a sentence, and the id that the log has of it."""

    error: str
    request_id: str


class UserInfo(Answer):
    """A user at a moment."""

    user_id: str
    user_type: Literal["loyal", "new", "unknown"]
    spending_segment: Literal["small", "low_average", "average", "high"]
    total_purchases: int
    unique_items: int
    avg_item_price: float | None
    last_purchase_date: ShopTime | None


class Recommendation(Answer):
    """One item of a list.

    score: as the model gave it; relevance: score over the highest attainable, null where a model's
    scores have no such scale and the rank alone counts; confidence: share bought of suggestions at
    such a place; last_purchase_date: of this shopper, null for what they never bought.
    """

    rank: int
    item_id: str
    item_name: str
    category: str | None
    relevance_score: Share | None
    confidence_score: Share | None
    score: float | None
    item_price: float | None
    stock: Stock
    recommendation_reason: str
    model_source: str
    last_purchase_date: ShopTime | None


class Tried(Answer):
    """A model that was tried, and what it could say."""

    model: str
    outcome: str


class RecommendationResponse(Answer):
    """A list for one user, by whatever model.

    notes: which model stood in for which and why, and what the shop decided of the list. fallback:
    the models that were tried in their order, where the one asked for had not enough to say. near:
    known ids that differ from an unknown one by a slip of the hand.
    """

    user_id: str
    user_info: UserInfo
    recommendations: list[Recommendation]
    primary_model: str
    fallback_used: bool
    fallback: list[Tried]
    near: list[str]
    notes: list[str]
    processing_time_ms: float
    generated_at: datetime
    cached: bool
    model_version: str


class ScorePart(Answer):
    """A model's share in a score."""

    model: str
    weight: float
    score: float
    contribution: float


class Rule(Answer):
    """A business rule and what it did to the item."""

    rule: str
    state: str
    effect: str


class Neighbour(Answer):
    """An item of the history that is like the one explained."""

    item_id: str
    item_name: str
    similarity: float


class Explanation(Answer):
    """Why an item stands where it does."""

    user_id: str
    item_id: str
    item_name: str
    model: str
    rank: int | None
    relevance_score: Share | None
    score: float | None
    recommendation_reason: str
    parts: list[ScorePart]
    rules: list[Rule]
    neighbours: list[Neighbour]


class SimilarItem(Answer):
    """An item beside another; confidence: share of the other's shoppers who bought it too."""

    item_id: str
    item_name: str
    category: str | None
    relevance_score: Share
    confidence_score: Share
    item_price: float | None
    stock: Stock


class SimilarResponse(Answer):
    """Items like one."""

    item_id: str
    item_name: str
    similar_items: list[SimilarItem]
    processing_time_ms: float


class PopularItem(Answer):
    """An item that sells."""

    item_id: str
    item_name: str
    category: str | None
    item_price: float | None
    stock: Stock
    popularity_score: Share
    confidence_score: Share | None
    purchase_count: int
    unique_buyers: int


class PopularResponse(Answer):
    """What sells best, best first."""

    count: int
    items: list[PopularItem]


class Item(Answer):
    """An item as the shop lists it."""

    item_id: str
    item_name: str
    category: str | None
    item_price: float | None
    stock: Stock


class ItemsResponse(Answer):
    """Items found, and the categories to filter by."""

    count: int
    items: list[Item]
    categories: list[str]


class Health(Answer):
    """How the service is.

    parts: each "ready", or what is missing and what brings it back; degraded: lists can be asked,
    another part not.
    """

    status: Literal["initializing", "healthy", "degraded", "not_trained", "failed"]
    version: str
    models_loaded: list[str]
    model_version: str | None
    parts: dict[str, str]
    timestamp: datetime


class Status(Answer):
    """Health of the predictions."""

    status: str
    version: str


class Model(Answer):
    """A model to choose."""

    name: str
    title: str
    description: str
    family: str
    weight: float | None
    live: bool


class ModelsResponse(Answer):
    """All of them, how a list is made, and of whose data.

    default: who answers where a request names no model. page: which model the page opens with.
    shipped: which one the report ships, null where no report was made. stocks: whether the data say
    what is in stock. as_of: the last receipt.
    """

    models: list[Model]
    default: str
    page: str
    shipped: str | None
    trained_at: datetime
    architecture: dict[str, str]
    dataset: str
    title: str
    currency: str
    synthetic: bool
    stocks: bool
    as_of: ShopTime


class Stats(Answer):
    """Counts, cache and latency since the start."""

    is_initialized: bool
    model_load_time: float
    cache_size: int
    cache_max_size: int
    cache_hits: int
    cache_misses: int
    requests: int
    recommendations: int
    fallbacks: int
    latency_ms: dict[str, float | None]
    model_stats: dict[str, Any]
    config: dict[str, Any]


class ConfigResponse(Answer):
    """The live configuration."""

    config: dict[str, Any]
    description: dict[str, str]


class UserGroups(Answer):
    """User ids by type."""

    loyal: list[str]
    new: list[str]


class UsersResponse(Answer):
    """Known users; counts are of all that fit the search."""

    loyal_count: int
    new_count: int
    users: UserGroups


class Bought(Answer):
    """A line of a history."""

    item_id: str
    item_name: str
    times: int
    last_purchase_date: ShopTime


class Profile(Answer):
    """What is known of a user.

    attributes: as the shop's file of clients has them, without what the receipts count.
    """

    attributes: dict[str, Any]
    history: list[Bought]


class ProfileResponse(Answer):
    """A user, known or not.

    near: known ids that differ from an unknown one by a slip of the hand.
    later_purchases: what came since the receipts.
    """

    user_id: str
    user_info: UserInfo
    profile: Profile | None
    is_known_user: bool
    near: list[str]
    later_purchases: int


class KnobChange(Answer):
    """A knob that differs, and what the study of this rule alone expects; null if it has none.

    precision, revenue_share: changes of precision@5 and of the share of spending that the lists
    predict, of warm shoppers of the validation window.
    """

    knob: str
    before: Any
    after: Any
    precision: float | None
    revenue_share: float | None


class PreviewResponse(Answer):
    """One shopper's list under the knobs in force and under those tried; nothing is saved.

    study: where the expectations come from, null where no study was recorded. toml: what to write
    into the file that TUNING_PATH names.
    """

    before: RecommendationResponse
    after: RecommendationResponse
    changes: list[KnobChange]
    study: str | None
    toml: str


class ReloadResponse(Answer):
    """The version that is served now."""

    model_version: str
    previous_version: str | None
    seconds: float
