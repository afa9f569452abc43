"""The JSON API of lists, items, users and the system itself, at /api/v1."""

import time
from hmac import compare_digest
from typing import Annotated

import fastapi
import pandas as pd
from fastapi import APIRouter, Depends, Request, Security
from fastapi.security import APIKeyHeader
from starlette.convertors import PathConvertor, register_url_convertor

from recsys_utils import LabError
from recsys_utils.ensembles.hybrid import MODELS
from recsys_utils.serving.answers import (
    ConfigResponse,
    Explanation,
    Health,
    ItemsResponse,
    ModelsResponse,
    PopularResponse,
    PreviewResponse,
    ProfileResponse,
    RecommendationResponse,
    ReloadResponse,
    SimilarResponse,
    Stats,
    UsersResponse,
)
from recsys_utils.serving.errors import Forbidden, NotFound
from recsys_utils.serving.explain import explain_item
from recsys_utils.serving.lists import STRANGER, Query, look_up
from recsys_utils.serving.near import near_ids
from recsys_utils.serving.online import READY
from recsys_utils.serving.preview import preview
from recsys_utils.serving.schemas import (
    CustomRequest,
    Id,
    Moment,
    NewItems,
    Part,
    PreviewRequest,
    Price,
    RecommendationRequest,
    Words,
)
from recsys_utils.serving.service import (
    VERSION,
    Loaded,
    Service,
    elapsed_ms,
    models,
    user_info,
)
from recsys_utils.serving.views import catalogue, popular, profile, similar, users


class Whole(PathConvertor):
    """An id in a path: a slash or a line end is a part of it, so what has more path behind the id
    is declared before what has not.
    """

    regex = "(?s:.+)"


register_url_convertor("id", Whole())


def known_keys(request: Request) -> None:
    """Refuse a key of the query that the route does not know: it would be passed over."""
    route = request.scope["route"]
    known = [field.alias for field in route.dependant.query_params]
    unknown = [key for key in request.query_params if key not in known]
    if unknown:
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        raise LabError(f"{unknown[0][:60]} is no parameter here: {takes}")


api = APIRouter(prefix="/api/v1", dependencies=[Depends(known_keys)])
key_header = APIKeyHeader(
    name="X-API-Key",
    auto_error=False,
    description="Needed by writing requests where the service has a key",
)
ManyIds = Annotated[list[Id], fastapi.Query(max_length=1000)]
DESCRIPTION = {
    "tuning": "every knob of the hybrid",
    "service": "settings from the environment; the key itself is never shown",
    "event_weights": (
        "what an event adds to a product's score in the queue; a purchase ends its place there"
    ),
    "queue": "sizes of a shopper's queue",
}
ARCHITECTURE = {
    "level_1": "candidates: the best of a weighted blend of ALS, item-item and popularity",
    "level_2": "re-ranking: segment and price limits, repurchase cycles, upsell",
    "lists": "leaderboard models, ranked in training, looked up here",
}


def service(request: Request) -> Service:
    """The app's service."""
    return request.app.state.service


def loaded(request: Request) -> Loaded:
    """What it serves; 503 while there is nothing."""
    return service(request).ready()


def keyed(request: Request, given: str | None = Security(key_header)) -> None:
    """Let a writing request through that brings the key, where there is one."""
    key = service(request).config.api_key
    if key is not None and not compare_digest(
        (given or "").encode(), key.get_secret_value().encode()
    ):
        raise Forbidden("this request writes: send the key in the header X-API-Key")


def _n(most: int, default: int) -> object:
    return fastapi.Query(default, ge=1, le=most, description=f"how many, 1 to {most}")


def _naive(moment: object) -> pd.Timestamp | None:
    return None if moment is None else pd.Timestamp(moment)


@api.get("/recommendations/anonymous", tags=["recommendations"])
def anonymous(
    request: Request,
    n: int = _n(20, 5),
    price_min: Price | None = None,
    price_max: Price | None = None,
    category: Words | None = None,
    in_stock_only: bool = False,
    exclude_items: ManyIds = (),
) -> RecommendationResponse:
    """What sells, for somebody unknown."""
    return service(request).recommend(
        Query(
            STRANGER,
            n,
            "popularity",
            exclude_items=tuple(exclude_items),
            price_min=price_min,
            price_max=price_max,
            category=category,
            in_stock_only=in_stock_only,
        )
    )


@api.post("/recommendations/custom", tags=["recommendations"])
def custom(request: Request, body: CustomRequest) -> RecommendationResponse:
    """A list for a history made up on the spot."""
    return service(request).recommend(
        Query(
            STRANGER,
            body.n,
            "hybrid",
            _naive(body.timestamp),
            history=tuple(body.items),
            **body.filters(),
        )
    )


@api.get("/recommendations/{user_id:id}/explain", tags=["recommendations"])
def explain(
    request: Request,
    user_id: Id,
    item_id: Id,
    model: Words | None = None,
    timestamp: Moment | None = None,
) -> Explanation:
    """Why an item stands where it does in a user's list."""
    now = loaded(request)
    model = service(request).default_model if model is None else model
    query = Query(user_id, model=model, as_of=_naive(timestamp))
    target = look_up(query, now.art, now.online)
    return Explanation(**explain_item(target, _code(now, item_id)))


@api.get("/recommendations/{user_id:id}", tags=["recommendations"])
def recommend(
    request: Request,
    user_id: Id,
    n: int = _n(20, 5),
    model: Words | None = None,
    timestamp: Moment | None = None,
    exclude_purchased: bool = False,
    exclude_items: ManyIds = (),
    price_min: Price | None = None,
    price_max: Price | None = None,
    category: Words | None = None,
    in_stock_only: bool = False,
    pin_items: ManyIds = (),
    boost_items: ManyIds = (),
    diversity: Part | None = None,
    min_relevance: Part | None = None,
    new_items: NewItems = 0,
) -> RecommendationResponse:
    """The n best items for a user, by the hybrid unless another model is named or set.

    timestamp: the moment to look from (UTC where it names no zone); what was bought until then
    counts. Before the models' cut, every reason says until when they have learnt; who had bought
    nothing yet gets what sells. pin_items come first, boost_items gain relevance; diversity from 0,
    relevance alone, to 1; min_relevance leaves out what is less relevant. new_items: of the n at
    least so many are new to the shopper; filters hold for them too, and notes say where they do
    not leave enough.
    """
    return service(request).recommend(
        Query(
            user_id,
            n,
            service(request).default_model if model is None else model,
            _naive(timestamp),
            exclude_purchased,
            tuple(exclude_items),
            price_min,
            price_max,
            category,
            in_stock_only,
            pin_items=tuple(pin_items),
            boost_items=tuple(boost_items),
            diversity=diversity,
            min_relevance=min_relevance,
            new_items=new_items,
        )
    )


@api.post("/recommendations", tags=["recommendations"])
def recommend_post(request: Request, body: RecommendationRequest) -> RecommendationResponse:
    """The same as GET, asked in a body."""
    model = service(request).default_model if body.model_type is None else body.model_type
    return service(request).recommend(
        Query(
            body.user_id,
            body.num_recommendations,
            model,
            _naive(body.timestamp),
            **body.filters(),
        )
    )


@api.post("/preview", tags=["recommendations"])
def preview_knobs(request: Request, body: PreviewRequest) -> PreviewResponse:
    """The hybrid's list for a user under other knobs, and what a study expects of them.

    Nothing is saved: write `toml` into a file and start the service with TUNING_PATH.
    """
    query = Query(body.user_id, body.n, in_stock_only=body.in_stock_only)
    return preview(loaded(request), query, body.tuning)


@api.get("/items/popular", tags=["items"])
def popular_items(request: Request, n: int = _n(100, 10)) -> PopularResponse:
    """What sells best."""
    items = popular(loaded(request).art, n)
    return PopularResponse(count=len(items), items=items)


@api.get("/items/{item_id:id}/similar", tags=["items"])
def similar_items(
    request: Request, item_id: Id, n: int = _n(20, 5), in_stock_only: bool = False
) -> SimilarResponse:
    """Items that are bought with one.

    The confidence is the share of its shoppers who bought both.
    """
    start = time.perf_counter()
    now = loaded(request)
    item = _code(now, item_id)
    rows = similar(now.art, item, n, in_stock_only)
    return SimilarResponse(
        item_id=item_id,
        item_name=now.art.names[item],
        similar_items=rows,
        processing_time_ms=elapsed_ms(start),
    )


@api.get("/items", tags=["items"])
def items(request: Request, q: Words = "", limit: int = _n(100, 20)) -> ItemsResponse:
    """Items by words of their name, id or category."""
    return ItemsResponse(**catalogue(loaded(request).art, q, limit))


@api.get("/users", tags=["users"])
def all_users(
    request: Request,
    q: Words = "",
    limit: int = _n(100, 100),
    offset: int = fastapi.Query(0, ge=0, le=1_000_000_000),
) -> UsersResponse:
    """Known users by type, those whose id holds q; limit and offset count within each type."""
    return UsersResponse(**users(loaded(request), q, limit, offset))


@api.get("/users/{user_id:id}/profile", tags=["users"])
def user_profile(request: Request, user_id: Id) -> ProfileResponse:
    """What is known of a user."""
    now = loaded(request)
    target = look_up(Query(user_id), now.art, now.online)
    is_in_file = user_id in now.art.clients.index
    known = target.user >= 0 or target.later_purchases is not None or is_in_file
    return ProfileResponse(
        user_id=user_id,
        user_info=user_info(target, user_id),
        profile=profile(target) if known else None,
        is_known_user=known,
        near=[] if known else near_ids(now.art, user_id),
        later_purchases=0 if target.later_purchases is None else len(target.later_purchases),
    )


@api.get("/health", tags=["system"])
def health(request: Request) -> Health:
    """How the service is; 200 while it is loading too."""
    mine = service(request)
    now = mine.loaded
    names = [*MODELS, *now.art.lists] if now else []
    parts = mine.parts()
    is_whole = set(parts.values()) == {READY}
    return Health(
        status=("healthy" if is_whole else "degraded") if now else mine.status,
        version=VERSION,
        models_loaded=names,
        model_version=now.version if now else None,
        parts=parts,
        timestamp=mine.now(),
    )


@api.get("/health/live", tags=["system"])
def live(request: Request) -> Health:
    """Whether the process answers."""
    return health(request)


@api.get("/health/ready", tags=["system"])
def ready(request: Request) -> Health:
    """Whether lists can be asked for; 503 until they can.

    Its parts say what else is missing and what brings it back.
    """
    loaded(request)
    return health(request)


@api.get("/models", tags=["system"])
def all_models(request: Request) -> ModelsResponse:
    """The models to choose, with the weights of the live configuration."""
    now = loaded(request)
    manifest = now.art.manifest
    about = {name: manifest[name] for name in ("dataset", "title", "currency", "synthetic")}
    mine = service(request)
    return ModelsResponse(
        models=models(now),
        default=mine.default_model,
        page=mine.page_model,
        shipped=now.shipped.get("report"),
        trained_at=manifest["trained_at"],
        architecture=ARCHITECTURE,
        stocks=bool(now.art.stocks),
        as_of=manifest["cut"],
        **about,
    )


@api.get("/stats", tags=["system"])
def stats(request: Request) -> Stats:
    """Counts, cache and latency since the start."""
    return Stats(**service(request).stats())


@api.get("/config", tags=["system"])
def config(request: Request) -> ConfigResponse:
    """The live configuration."""
    return ConfigResponse(config=service(request).live_config(), description=DESCRIPTION)


@api.post("/reload", tags=["system"], dependencies=[Depends(keyed)])
def reload(request: Request) -> ReloadResponse:
    """Serve the newest trained version; whoever is being answered still gets the old one."""
    mine = service(request)
    before = mine.loaded.version if mine.loaded else None
    mine.load()
    return ReloadResponse(
        model_version=mine.ready().version, previous_version=before, seconds=mine.ready().seconds
    )


def _code(now: Loaded, item_id: str) -> int:
    code = int(now.art.items.index.get_indexer([item_id])[0])
    if code < 0:
        raise NotFound(
            f"item '{item_id[:60]}' is not in the catalogue of {len(now.art.items):,}: find items"
            " at /api/v1/items?q="
        )
    return code
