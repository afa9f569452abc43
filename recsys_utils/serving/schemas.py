"""What goes in, typed; bad input is refused here, with the field's name."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

TEXT = r"^[^\x00-\x1f\x7f-\x9f]+$"  # no control characters
MAX_ID = 200
YEARS = (1970, 2200)
DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def _moment(value: datetime) -> datetime:
    """UTC without zone; a time without zone is UTC already."""
    if not YEARS[0] <= value.year < YEARS[1]:
        # What it takes, as `errors.sentence` says it.
        raise ValueError(f"a time of the years {YEARS[0]} to {YEARS[1] - 1}")
    return value.astimezone(UTC).replace(tzinfo=None) if value.tzinfo else value


def _no_bare_number(value: object) -> object:
    """A date may not be read as seconds of 1970, such as 20250115 or 1.7e9."""
    is_text = isinstance(value, str) and not DATE.match(value)
    if is_text or (isinstance(value, int | float) and not isinstance(value, bool)):
        raise ValueError("a time like 2025-01-15T10:00:00Z")
    return value


def _no_truth(value: object) -> object:
    """True is no 1."""
    if isinstance(value, bool):
        raise ValueError("a number")
    return value


def _number_as_text(value: object) -> object:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Id = Annotated[
    str,
    BeforeValidator(_number_as_text),
    StringConstraints(min_length=1, max_length=MAX_ID, pattern=TEXT),
]
Words = Annotated[str, StringConstraints(max_length=MAX_ID, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Moment = Annotated[datetime, BeforeValidator(_no_bare_number), AfterValidator(_moment)]
ShopTime = Annotated[
    datetime,
    WithJsonSchema(
        {
            "type": "string",
            "description": "the shop's time, without zone",
            "examples": ["2025-01-10T14:30:00"],
        }
    ),
]
NoTruth = BeforeValidator(_no_truth)
Price = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False), NoTruth]
Count = Annotated[int, Field(ge=1, le=20), NoTruth]
NewItems = Annotated[int, Field(ge=0, le=20), NoTruth]
Part = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False), NoTruth]
Ids = Annotated[list[Id], Field(max_length=1000)]
EventType = Literal["view", "cart", "remove_from_cart", "purchase"]


class Body(BaseModel):
    """A request's body; an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Filtered(Body):
    """What may be left out of a list, and what people decide of it.

    new_items: at least so many of the list are new to the shopper.
    Unset, diversity and min_relevance are as the settings have them.
    """

    exclude_purchased: bool = False
    exclude_items: Ids = []
    price_range_min: Price | None = None
    price_range_max: Price | None = None
    category: Words | None = None
    in_stock_only: bool = False
    pin_items: Ids = []
    boost_items: Ids = []
    diversity: Part | None = None
    min_relevance: Part | None = None
    new_items: NewItems = 0

    def filters(self) -> dict:
        """Its fields as a `Query` has them."""
        return {
            "exclude_purchased": self.exclude_purchased,
            "exclude_items": tuple(self.exclude_items),
            "price_min": self.price_range_min,
            "price_max": self.price_range_max,
            "category": self.category,
            "in_stock_only": self.in_stock_only,
            "pin_items": tuple(self.pin_items),
            "boost_items": tuple(self.boost_items),
            "diversity": self.diversity,
            "min_relevance": self.min_relevance,
            "new_items": self.new_items,
        }


class RecommendationRequest(Filtered):
    """What GET takes in its query."""

    model_config = ConfigDict(
        extra="forbid",
        protected_namespaces=(),
        json_schema_extra={
            "examples": [
                {
                    "user_id": "41786230378",
                    "num_recommendations": 5,
                    "model_type": "als",
                    "exclude_purchased": True,
                    "price_range_min": 5,
                    "price_range_max": 20,
                    "timestamp": "2025-01-15T10:00:00",
                }
            ]
        },
    )

    user_id: Id
    num_recommendations: Count = 5
    model_type: Words | None = None
    timestamp: Moment | None = None


class PreviewRequest(Body):
    """Knobs to try on one shopper: what differs from the knobs in force, as data/tuning.toml."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "user_id": "U000003",
                    "n": 5,
                    "tuning": {"repurchase_cycle": {"exclusion_factor": 0.2}},
                }
            ]
        },
    )

    user_id: Id
    n: Count = 5
    in_stock_only: bool = False
    tuning: Annotated[dict[str, Any], Field(max_length=20)]


class CustomRequest(Filtered):
    """A history made up on the spot."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "items": ["I00404", "I00421"],
                    "n": 5,
                    "price_range_max": 20,
                    "in_stock_only": True,
                }
            ]
        },
    )

    items: Annotated[list[Id], Field(min_length=1, max_length=1000)]
    n: Count = 5
    timestamp: Moment | None = None


class Event(Body):
    """Something that a shopper did.

    Without event_id, two events equal in everything else are one; without timestamp it happens now.
    """

    user_id: Id
    item_id: Id
    event_type: EventType
    timestamp: Moment | None = None
    event_id: Id | None = None


class EventsRequest(Body):
    """Events to post together: all are kept or none."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "events": [
                        {
                            "user_id": "U000003",
                            "item_id": "I00404",
                            "event_type": "cart",
                            "timestamp": "2025-07-01T09:30:00Z",
                            "event_id": "web-1",
                        }
                    ]
                }
            ]
        },
    )

    events: Annotated[list[Event], Field(min_length=1, max_length=1000)]


Number = Annotated[float, Field(strict=True, ge=-1e12, le=1e12, allow_inf_nan=False)]
Attributes = Annotated[dict[Words, Words | Number | None], Field(max_length=50)]


class NewCustomerRequest(Body):
    """A profile: any of the form's fields."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "profile": {"Age": 28, "Gender": "F", "Country": "France", "Income": "High"},
                    "top_k": 5,
                }
            ]
        },
    )

    profile: Attributes
    top_k: Annotated[int, Field(ge=1, le=100), NoTruth] = 5


class RatingRequest(Body):
    """A profile or a customer's id, and a product's name or attributes."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "profile": {"Age": 28, "Gender": "F"},
                    "item": {"Product_Category": "Household", "Product_Brand": "Greenway"},
                }
            ]
        },
    )

    profile: Attributes | None = None
    customer_id: Id | None = None
    item: Words | Attributes


class PredictRequest(Body):
    """A prediction for one user."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"user_id": "U000003"}]}
    )

    user_id: Id


class PredictListRequest(Body):
    """Predictions for many users."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"user_ids": ["U000003", "a stranger"]}]}
    )

    user_ids: Annotated[list[Id], Field(min_length=1, max_length=1000)]
