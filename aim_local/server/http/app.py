"""The routes: OpenAI's chat completions, models and files; health, metrics, the page, the description of all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import ASGIApp

from .. import metrics, page
from ..failures import RequestError, internal_error
from ..jobs import Answered, Event
from ..looks import looks
from ..media.uploads import Uploads
from ..service import About, Service
from . import schema
from .bodies import Bodies
from .files import file_routes
from .front import Front, JsonResponse, error_response, record_of
from .guard import Guard
from .reply import Reply
from .stream import JobResponse

_STATUS_OF_HEALTH = {"ok": 200}
_WHERE = "questions go to /v1/chat/completions (a client's base URL ends in /v1), and /openapi.json lists all there is"


def make_app(
    service: Service, uploads: Uploads, guard: Guard, say: Callable[[str], None] | None = None, *, debug: bool = False
) -> ASGIApp:
    """say: takes lines for the log. The service has to be opened and closed by whoever runs it."""
    app = FastAPI(
        title="aim-local", version=schema.version(), docs_url=None, redoc_url=None, openapi_url=None,
        redirect_slashes=False,
    )  # fmt: skip
    _answer_errors(app)
    bodies = Bodies(service.limits.body_bytes, service.limits.answer_s)
    _chat_route(app, service, bodies)
    _model_routes(app, service)
    _health_routes(app, service)
    file_routes(app, uploads, service.limits)
    _page_routes(app)
    schema.describe(app, has_keys=bool(guard.keys))
    return Front(app, guard, service.metrics, say, debug=debug)


def _chat_route(app: FastAPI, service: Service, bodies: Bodies) -> None:
    @app.post("/v1/chat/completions", tags=["chat"], openapi_extra=schema.CHAT, responses=schema.CHAT_ANSWERS)
    async def chat_completions(request: Request) -> Response:
        """The next message of a conversation about clips and pictures."""
        about, loop = service.served(), asyncio.get_running_loop()
        events: asyncio.Queue[Event] = asyncio.Queue()
        with bodies.reading() as reader:
            asked = await asyncio.to_thread(service.read, await reader.json(request))

        def emit(event: Event) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(events.put_nowait, event)

        record = record_of(request.scope)
        job = service.submit(asked, record.account, emit, record.owner)
        frame = Reply(about.served.names[0])
        return JobResponse(job, events, frame, service.limits.answer_s, service.leave, _looks)


def _looks(done: Answered) -> object:
    return looks(done.answer.trace)


def _model_routes(app: FastAPI, service: Service) -> None:
    @app.get("/v1/models", tags=["models"], responses=schema.answers(schema.MODELS, 401, 403, 503))
    async def models() -> Response:
        """The one model that is served."""
        return JsonResponse({"object": "list", "data": [_model(service.served())]})

    @app.get("/v1/models/{model:path}", tags=["models"], responses=schema.answers(schema.MODEL, 401, 403, 404, 503))
    async def model(model: str) -> Response:
        """What is known of it."""
        about = service.served()
        if model not in about.served.names:
            said = f"there is no model of that name here; served is {about.served.names[0]}"
            raise RequestError(404, said, param="model", code="model_not_found")
        return JsonResponse(_model(about))


def _model(about: About) -> dict[str, object]:
    return {
        "id": about.served.names[0],
        "object": "model",
        "created": about.created,
        "owned_by": "aim-local",
        "meta": about.meta,
    }


def _health_routes(app: FastAPI, service: Service) -> None:
    @app.head("/health", include_in_schema=False)
    @app.get("/health", tags=["service"], responses=schema.HEALTH_ANSWERS)
    async def health() -> Response:
        """Whether requests are answered."""
        told = {"status": service.state, "waiting": len(service.queue), "working": not service.is_idle}
        return JsonResponse(told, _STATUS_OF_HEALTH.get(service.state, 503))

    @app.get("/metrics", tags=["service"], responses=schema.METRICS_ANSWERS)
    async def prometheus() -> Response:
        """Counters for Prometheus."""
        return Response(service.metrics.text(), media_type=metrics.CONTENT_TYPE)


def _page_routes(app: FastAPI) -> None:
    @app.head("/", include_in_schema=False)
    @app.get("/", include_in_schema=False)
    @app.get("/page/{name:path}", include_in_schema=False)
    async def page_file(request: Request) -> Response:
        found = page.reply(request.url.path, request.headers.get("If-None-Match", ""))
        if found is None:
            raise RequestError(404, "there is no such file of the page")
        return Response(found.body, found.status, found.headers)


def _methods(app: FastAPI, request: Request) -> list[str]:
    """Of all routes of a path; what comes with the error is of the first alone."""
    found: set[str] = set()
    for route in app.routes:
        if isinstance(route, Route) and route.matches(request.scope)[0] != Match.NONE:
            found |= route.methods or set()
    return sorted(found)


def _answer_errors(app: FastAPI) -> None:
    """Every error in OpenAI's form."""

    @app.exception_handler(RequestError)
    async def refused(request: Request, e: RequestError) -> Response:
        return error_response(e)

    @app.exception_handler(HTTPException)
    async def http(request: Request, e: HTTPException) -> Response:
        said = {
            404: f"there is nothing at {request.url.path[:200]}; {_WHERE}",
            405: f"{request.method[:40]} is not possible here",
        }
        headers = dict(e.headers or {})
        if e.status_code == 405:
            headers["Allow"] = ", ".join(_methods(app, request))
        return error_response(RequestError(e.status_code, said.get(e.status_code, str(e.detail)), headers=headers))

    @app.exception_handler(Exception)
    async def fault(request: Request, e: Exception) -> Response:
        """Comes out of the application as well, and is told in the log by Front."""
        return error_response(internal_error(e))

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, e: RequestValidationError) -> Response:
        first = e.errors()[0]
        where = ".".join(str(step) for step in first["loc"][1:])
        return error_response(RequestError(400, f"{where}: {first['msg']}", param=where))
