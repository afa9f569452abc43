"""Answers: events, queues, forms, ratings, predictions."""

from typing import Annotated, Literal

from pydantic import Field

from recsys_utils.serving.answers import Answer, Share, Stock


class EventsResponse(Answer):
    """What became of posted events; when this is answered, they are on the disk."""

    accepted: int
    duplicates: int
    late: int
    purchases: int


class Shown(Answer):
    """A product of the queue whose turn it is.

    purchase_probability: of buying it, once it is come across, as the network has seen what was
    bought and what was passed over; null where it has seen only one of them.
    """

    rank: int
    item_id: str
    item_name: str
    category: str | None
    item_price: float | None
    stock: Stock
    score: int
    counter: int
    source: Literal["events", "cf", "category", "popular"]
    purchase_probability: Share | None


class QueueResponse(Answer):
    """A shopper's queue.

    pool: [product, times shown, score]. purchased: a page of the products ever purchased, in the
    order of ids; purchased_count: how many there are. cart: what is in the cart. names: of every
    product named here.
    """

    user_id: str
    pool: list[tuple[str, int, int]]
    names: dict[str, str]
    purchased: list[str]
    purchased_count: int
    cart: list[str]
    shown: list[Shown]
    weights: dict[str, int]


class FormField(Answer):
    """A field of the new customer's form.

    weight: its part of what all fields together change in the lists. asked: of the few to ask
    first.
    """

    field: str
    weight: float
    asked: bool
    kind: Literal["choice", "text", "number"]
    options: list[str]
    minimum: float | None
    maximum: float | None


class FieldsResponse(Answer):
    """The form; not available where the data hold no ratings."""

    available: bool
    fields: list[FormField]
    item_fields: list[FormField]


class RatedItem(Answer):
    """A product's attributes and its predicted rating, 1 to 5; what the shop knows of it, and why.

    item_id is null for a product that the service does not list.
    """

    item: dict[str, str]
    rating: Annotated[float, Field(ge=1, le=5)]
    item_id: str | None
    item_name: str
    category: str | None
    item_price: float | None
    stock: Stock
    reason: str


class NewCustomerResponse(Answer):
    """The best products for a profile."""

    recommendations: list[RatedItem]


class RatingResponse(Answer):
    """A rating in [1, 5], and as people read it."""

    rating: Annotated[float, Field(ge=1, le=5)]
    text: str


class Prediction(Answer):
    """Five items for a user."""

    user_id: str
    recommendations: list[str]
    new_user: bool
