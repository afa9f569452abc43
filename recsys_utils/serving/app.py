"""The application: routes, errors as sentences, the page, and what happens at its start and end."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from anyio import to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.middleware.cors import CORSMiddleware
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from fastapi.staticfiles import StaticFiles
from jinja2 import Environment, FileSystemLoader
from starlette.exceptions import HTTPException

from recsys_utils import LabError, __version__
from recsys_utils.serving import live, routes
from recsys_utils.serving.answers import Problem, Status
from recsys_utils.serving.errors import Conflict, Forbidden, NotFound, Unavailable, sentence
from recsys_utils.serving.service import Service
from recsys_utils.serving.settings import Settings
from recsys_utils.serving.telemetry import Gate

HERE = Path(__file__).parent
# that answer at once: more only wait for one another, and each keeps a connection to the queue with
# pages of its own
THREADS = 8
STATUS = {
    Unavailable: 503,
    NotFound: 404,
    Conflict: 409,
    Forbidden: 401,
}  # of errors; any other LabError is bad input, 422
ERRORS = {
    status: {"model": Problem, "description": text}
    for status, text in {
        400: "the request cannot be read, or names another host",
        401: "the key is missing or wrong",
        403: "another site's page would write",
        404: "not there",
        409: "an event_id was given to another event before",
        408: "the body took too long",
        413: "the body is too large",
        422: "bad input: the sentence names the field and the cure",
        503: "nothing can be answered now",
    }.items()
}
log = logging.getLogger("recsys_utils.serving")


def clock() -> datetime:
    """The time on the wall."""
    return datetime.now(UTC)


def create_app(
    artifacts_dir: Path | str,
    db_path: Path | str | None = None,
    config: Settings | None = None,
    clock: Callable[[], datetime] = clock,
    timer: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """The service of what `serving.train` left in a folder.

    db_path: the queue's database, by default the one that training made there. timer: seconds that
    the cache ages by, whoever sets the clock.
    """
    config = config or Settings()
    app = FastAPI(
        title="Retail RecSys Lab",
        version=__version__,
        description="Every recommender of the lab behind the same answer.",
        lifespan=_lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=ERRORS,
    )
    app.state.service = Service(
        Path(artifacts_dir), Path(db_path) if db_path else None, config, clock, timer
    )
    for router in (routes.api, live.api, live.predictions):
        app.include_router(router)
    for error, answer in {
        RequestValidationError: _invalid,
        HTTPException: _refused,
        LabError: _told,
    }.items():
        app.add_exception_handler(error, answer)
    _pages(app)
    if config.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=config.cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["Content-Type", "X-API-Key"],
        )
    app.add_middleware(Gate, telemetry=app.state.service.telemetry, config=config)
    # builds the routes now: at a first request, pydantic's warnings would depend on what other
    # threads import
    app.openapi()
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Load beside answering, so that health can be asked at once.

    Close when the last answer is given.
    """
    to_thread.current_default_thread_limiter().total_tokens = THREADS
    app.state.loading = asyncio.create_task(asyncio.to_thread(_load, app.state.service))
    yield
    await app.state.loading
    app.state.service.close()


def _load(service: Service) -> None:
    with suppress(LabError):  # said by health and by every answer
        service.load()
    fields = {"version": service.loaded.version} if service.loaded else {"problem": service.problem}
    log.info("loaded" if service.loaded else "not loaded", extra={"fields": fields})
    if service.online is not None:
        with suppress(LabError):  # said by health
            service.online.net()  # in good time, beside the first answers: it brings in torch


def _pages(app: FastAPI) -> None:
    """What people open: the page, its files, a reference of the API; and what Prometheus reads."""
    app.mount("/static", StaticFiles(directory=HERE / "static", check_dir=False), name="static")
    reference = Environment(loader=FileSystemLoader(HERE), autoescape=True)

    @app.get(
        "/",
        tags=["two-stage retail"],
        responses={
            200: {"model": Status, "content": {"text/html": {"schema": {"type": "string"}}}}
        },
    )
    def page(request: Request) -> Response:
        """The page; status and version where JSON is asked for."""
        accept = request.headers.get("accept", "")
        if "application/json" in accept and "text/html" not in accept:
            return JSONResponse(
                {
                    "status": "Green" if app.state.service.loaded else "Yellow",
                    "version": __version__,
                }
            )
        return FileResponse(HERE / "static" / "index.html")

    @app.get(
        "/metrics",
        tags=["two-stage retail"],
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
        response_class=Response,
    )
    def metrics() -> Response:
        """Counters and durations as Prometheus reads them."""
        return Response(app.state.service.telemetry.text(), media_type="text/plain")

    @app.get("/docs", include_in_schema=False)
    @app.get("/redoc", include_in_schema=False)
    def docs() -> HTMLResponse:
        """Every endpoint with its parameters and an example; no script, nothing remote."""
        return HTMLResponse(reference.get_template("reference.html").render(api=app.openapi()))


def _problem(request: Request, status: int, text: str, headers: dict | None = None) -> JSONResponse:
    return JSONResponse({"error": text, "request_id": request.state.request_id}, status, headers)


def _told(request: Request, error: LabError) -> JSONResponse:
    """Our own errors are sentences already."""
    status = STATUS.get(type(error), 422)
    return _problem(request, status, str(error), {"retry-after": "5"} if status == 503 else None)


def _refused(request: Request, error: HTTPException) -> JSONResponse:
    """Unknown paths and methods, bodies that are no text or nested without end."""
    is_deep = isinstance(error.__cause__, RecursionError)
    said = {
        400: "the body is nested too deeply: send flatter JSON"
        if is_deep
        else "the body cannot be read: send JSON in UTF-8",
        404: f"there is no {request.url.path[:80]}: see /docs",
        405: f"{request.method[:10]} is not allowed here: see /docs",
    }
    return _problem(
        request, error.status_code, said.get(error.status_code, str(error.detail)), error.headers
    )


def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
    """The first fault."""
    return _problem(request, 422, sentence(error.errors(), error.body))
