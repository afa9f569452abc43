"""More routes: new customers and ratings, predictions of five items, events and queues."""

from typing import TYPE_CHECKING

import fastapi
from fastapi import APIRouter, Depends, Request

from recsys_utils import LabError
from recsys_utils.serving.answers_live import (
    EventsResponse,
    FieldsResponse,
    FormField,
    NewCustomerResponse,
    Prediction,
    QueueResponse,
    RatingResponse,
    Shown,
)
from recsys_utils.serving.artifacts import OUT
from recsys_utils.serving.errors import NotFound
from recsys_utils.serving.lists import Query
from recsys_utils.serving.many import predict_many
from recsys_utils.serving.newcomers import rated_item, reasons_of_profile, weights_of_fields
from recsys_utils.serving.online import naive
from recsys_utils.serving.routes import keyed, known_keys, loaded, service
from recsys_utils.serving.schemas import (
    EventsRequest,
    Id,
    NewCustomerRequest,
    PredictListRequest,
    PredictRequest,
    RatingRequest,
)
from recsys_utils.serving.service import Loaded
from recsys_utils.serving.views import queue_rows

if TYPE_CHECKING:
    from recsys_utils.models.towers.standalone import StandaloneRecommender

FIVE = 5
PAGE = 1000  # purchases of one page
ASKED = 4  # questions that a new customer is asked first
FEW = 60  # options that a list to choose from may have
api = APIRouter(prefix="/api/v1", dependencies=[Depends(known_keys)])
predictions = APIRouter(tags=["two-stage retail"], dependencies=[Depends(known_keys)])


@api.post("/events", tags=["online"], dependencies=[Depends(keyed)])
def post_events(request: Request, body: EventsRequest) -> EventsResponse:
    """Keep events: a view adds 1, a cart 3, a removal −1, a purchase ends the product's place.

    The same event twice is one.
    """
    mine = service(request)
    counts = loaded(request).online.post(body.events, naive(mine.clock))
    mine.telemetry.events.labels("new").inc(counts.new)
    mine.telemetry.events.labels("duplicate").inc(len(body.events) - counts.new)
    return EventsResponse(
        accepted=counts.new,
        duplicates=len(body.events) - counts.new,
        late=counts.late,
        purchases=counts.purchases,
    )


@api.get("/queue/{user_id:id}", tags=["online"])
def queue(
    request: Request,
    user_id: Id,
    limit: int = fastapi.Query(PAGE, ge=1, le=PAGE, description=f"purchases, 1 to {PAGE:,}"),
    offset: int = fastapi.Query(0, ge=0, le=1_000_000_000),
) -> QueueResponse:
    """A shopper's queue; limit and offset choose a page of the purchases."""
    return _queue(loaded(request), user_id, [], limit, offset)


@api.post("/queue/{user_id:id}/next", tags=["online"], dependencies=[Depends(keyed)])
def queue_next(
    request: Request,
    user_id: Id,
    n: int | None = fastapi.Query(None, ge=1, le=20, description="how many, 1 to 20"),
) -> QueueResponse:
    """Show the next n products of a shopper's queue, filled where it is short, and count them as
    shown; without n, as many as the settings say. What is sold out is not shown.
    """
    now = loaded(request)
    n = n or now.online.settings.shown
    sold_out = now.art.items.index[now.art.stock_of(user_id) == OUT].tolist()
    rows = now.online.show(user_id, n, naive(service(request).clock), sold_out)
    rows = rows.drop(columns="user_id")
    return _queue(now, user_id, queue_rows(now.art, user_id, rows))


@api.get("/new-customer/fields", tags=["new customers"])
def fields(request: Request) -> FieldsResponse:
    """The form: any of these fields may be given."""
    tower = loaded(request).art.tower
    if tower is None:
        return FieldsResponse(available=False, fields=[], item_fields=[])
    mine = tower.encoder
    weights = weights_of_fields(tower)
    asked = sorted(weights, key=weights.get, reverse=True)[:ASKED]
    return FieldsResponse(
        available=True,
        fields=[_field(tower, name, weights[name], name in asked) for name in tower.fields],
        item_fields=[_field(tower, c, 0.0, False) for c in mine.item_cat_cols],
    )


@api.post("/new-customer/recommendations", tags=["new customers"])
def for_new_customer(request: Request, body: NewCustomerRequest) -> NewCustomerResponse:
    """The best products for a profile; what is missing or never seen counts as unknown."""
    tower = _tower(request)
    best = tower.recommend_for_new_user(body.profile, body.top_k)
    why = reasons_of_profile(tower, body.profile, [item[tower.product] for item, _ in best])
    return NewCustomerResponse(
        recommendations=[
            rated_item(loaded(request).art, item, rating, reason)
            for (item, rating), reason in zip(best, why)
        ]
    )


@api.post("/new-customer/rating", tags=["new customers"])
def rating(request: Request, body: RatingRequest) -> RatingResponse:
    """A predicted rating of a product, by name or attributes, for a profile or a customer."""
    tower = _tower(request)
    if (body.profile is None) == (body.customer_id is None):
        raise LabError("give either profile or customer_id, not both and not neither")
    if body.customer_id is not None and body.customer_id not in tower.profiles.index:
        raise NotFound(f"customer '{body.customer_id[:60]}' has no ratings: give a profile instead")
    result = min(
        max(
            tower.predict_rating(
                body.profile if body.customer_id is None else body.customer_id, body.item
            ),
            1.0,
        ),
        5.0,
    )
    from recsys_utils.models.towers.standalone import format_rating  # loaded with the tower

    return RatingResponse(rating=result, text=format_rating(result))


@predictions.post("/predict")
def predict(request: Request, body: PredictRequest) -> Prediction:
    """Five items for a user, by the two-stage ranker where it was trained.

    Only of the catalogue that the shop's `[prefilter]` keeps, where it has one.
    """
    return _predicted(request, body.user_id)


@predictions.post("/predict_user_list")
def predict_user_list(request: Request, body: PredictListRequest) -> list[Prediction]:
    """Five items for each user."""
    now = loaded(request)
    mine = service(request)
    answers = predict_many(now, body.user_ids, _five_by(now), FIVE)
    mine.telemetry.recommendations.labels(_five_by(now)).inc(len(answers))
    mine.telemetry.new_clients.inc(sum(answer.new_user for answer in answers))
    mine.telemetry.fallbacks.inc(sum(answer.fallback_used for answer in answers))
    return [
        Prediction(user_id=user, recommendations=answer.items, new_user=answer.new_user)
        for user, answer in zip(body.user_ids, answers)
    ]


def _queue(
    now: Loaded, user: str, rows: list[Shown], limit: int = PAGE, offset: int = 0
) -> QueueResponse:
    names = now.art.name_of
    pool, purchased, count, cart = now.online.standing(user, limit, offset)
    told = [*(item for item, _, _ in pool), *purchased, *cart]
    return QueueResponse(
        user_id=user,
        pool=pool,
        cart=cart,
        names={item: names.get(item, item) for item in told},
        purchased=purchased,
        purchased_count=count,
        shown=rows,
        weights=now.online.weights,
    )


def _five_by(now: Loaded) -> str:
    """The model of the predictions."""
    return "two_stage" if "two_stage" in now.art.lists else "hybrid"


def _predicted(request: Request, user: str) -> Prediction:
    model = _five_by(loaded(request))
    answer = service(request).recommend(Query(user, FIVE, model, prefiltered=True))
    return Prediction(
        user_id=user,
        recommendations=[row.item_id for row in answer.recommendations],
        new_user=answer.user_info.user_type == "unknown",
    )


def _tower(request: Request) -> "StandaloneRecommender":
    tower = loaded(request).art.tower
    if tower is None:
        raise NotFound(
            "this shop's data hold no ratings, so there is no model for new customers: train on"
            " data with ratings"
        )
    return tower


def _field(tower: "StandaloneRecommender", name: str, weight: float, is_asked: bool) -> FormField:
    """One field with what it takes."""
    mine = {"field": name, "weight": weight, "asked": is_asked}
    if name in tower.encoder.user_num_cols:
        numbers = tower.profiles[name].dropna()
        low, high = (float(numbers.min()), float(numbers.max())) if len(numbers) else (None, None)
        return FormField(kind="number", options=[], minimum=low, maximum=high, **mine)
    options = list(tower.encoder.mappings[name])
    return FormField(
        **mine,
        kind="choice" if len(options) <= FEW else "text",
        options=options,
        minimum=None,
        maximum=None,
    )
