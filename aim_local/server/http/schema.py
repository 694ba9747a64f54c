"""The description of the service in OpenAPI: what its requests and answers are, and every status that they can have.

The request of a chat is described by the class that reads it (wire.py); the rest is written down here.
"""

from __future__ import annotations

from importlib.metadata import version as installed
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.responses import Response

from ..requests.wire import ChatRequest
from .front import JsonResponse

Schema = dict[str, Any]
_ABOUT = "Answers about videos and pictures, as OpenAI's chat completions. One model, one answer at a time."
_REF = "#/components/schemas/{model}"
_WHAT = {
    400: "The request cannot be what was meant; the error names the field.",
    401: "The API key is missing or wrong.",
    403: "The request comes by a foreign host name or from a foreign page.",
    404: "There is no such thing.",
    408: "The body did not come in time.",
    413: "More bytes than are allowed.",
    415: "The body's type is not taken.",
    416: "The range begins behind the file's end.",
    429: "The queue is full; Retry-After says when to try again.",
    499: "The client went away meanwhile.",
    500: "A fault of the service.",
    503: "The model is being loaded, or the service is stopping.",
    504: "There was no answer within the service's limit.",
    507: "The disk is full.",
}


def version() -> str:
    return installed("aim-local")


# --- pieces -----------------------------------------------------------------------------------------------------------


def _object(required: Schema, **optional: Schema) -> Schema:
    return {"type": "object", "required": list(required), "properties": {**required, **optional}}


def _list_of(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _ref(name: str) -> Schema:
    return {"$ref": _REF.format(model=name)}


TEXT, WHOLE, NUMBER, FLAG = {"type": "string"}, {"type": "integer"}, {"type": "number"}, {"type": "boolean"}
TEXT_OR_NULL: Schema = {"type": ["string", "null"]}
ERROR = _object({"error": _object({"message": TEXT, "type": TEXT, "param": TEXT_OR_NULL, "code": TEXT_OR_NULL})})
MODEL = _object(
    {"id": TEXT, "object": {"const": "model"}, "created": WHOLE, "owned_by": TEXT, "meta": {"type": "object"}}
)
MODELS = _object({"object": {"const": "list"}, "data": _list_of(MODEL)})
FILE = _object(
    {"id": TEXT, "object": {"const": "file"}, "bytes": WHOLE, "created_at": WHOLE, "filename": TEXT, "purpose": TEXT}
)
FILES = _object({"object": {"const": "list"}, "data": _list_of(FILE), "has_more": FLAG})
DELETED = _object({"id": TEXT, "object": {"const": "file"}, "deleted": FLAG})
HEALTH = _object({"status": {"enum": ["ok", "loading", "stopping", "failed"]}, "waiting": WHOLE, "working": FLAG})
UPLOAD = _object({"file": {"type": "string", "format": "binary"}, "purpose": TEXT})
_DETAILS = _object({"cached_tokens": WHOLE, "visual_tokens_full": WHOLE, "visual_tokens": WHOLE})
USAGE = _object(
    {"prompt_tokens": WHOLE, "completion_tokens": WHOLE, "total_tokens": WHOLE, "prompt_tokens_details": _DETAILS}
)
_MESSAGE = _object({"role": {"const": "assistant"}, "content": TEXT})
_CHOICE = _object(
    {"index": WHOLE, "message": _MESSAGE, "finish_reason": {"enum": ["stop", "length"]}},
    logprobs={"type": ["object", "null"]},
)
COMPLETION = _object(
    {"id": TEXT, "object": {"const": "chat.completion"}, "created": WHOLE, "model": TEXT, "choices": _list_of(_CHOICE)},
    usage=USAGE,
    timings={"type": "object", "additionalProperties": NUMBER},
    warnings=_list_of(TEXT),
    toy=FLAG,
    looks={"type": ["object", "null"]},
)
_COMPONENTS = {
    "Error": ERROR,
    "Completion": COMPLETION,
}


def answers(good: Schema, *statuses: int, kind: str = "application/json") -> dict[int | str, Schema]:
    """The responses of a route: 200 with `good`, and errors."""
    found: dict[int | str, Schema] = {200: {"description": "Done.", "content": {kind: {"schema": good}}}}
    for status in (*statuses, 500):
        found[status] = {"description": _WHAT[status], "content": {"application/json": {"schema": _ref("Error")}}}
    return found


CHAT: Schema = {"requestBody": {"required": True, "content": {"application/json": {"schema": _ref("ChatRequest")}}}}
CHAT_ANSWERS = answers(_ref("Completion"), 400, 401, 403, 404, 408, 413, 415, 429, 499, 503, 504, 507)
CHAT_ANSWERS[200]["content"]["text/event-stream"] = {"schema": _object({"data": TEXT})}  # of each event
HEALTH_ANSWERS = answers(HEALTH, 403)
HEALTH_ANSWERS[503] = {"description": "Not yet, or not any more.", "content": {"application/json": {"schema": HEALTH}}}
METRICS_ANSWERS = answers(TEXT, 401, 403, kind="text/plain")
UPLOAD_FORM: Schema = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": UPLOAD}}}}


# --- the document -----------------------------------------------------------------------------------------------------


def describe(app: FastAPI, *, has_keys: bool) -> None:
    """Adds /openapi.json."""

    @app.get("/openapi.json", tags=["service"], responses=answers({"type": "object"}, 401, 403))
    async def openapi() -> Response:
        """This description."""
        app.openapi_schema = app.openapi_schema or _document(app, has_keys)
        return JsonResponse(app.openapi_schema)


def _document(app: FastAPI, has_keys: bool) -> Schema:
    document = get_openapi(title=app.title, version=app.version, routes=app.routes, description=_ABOUT)
    schemas: Schema = document.setdefault("components", {}).setdefault("schemas", {})
    for name in ("HTTPValidationError", "ValidationError"):  # FastAPI's own; errors have another form here
        schemas.pop(name, None)
    request = ChatRequest.model_json_schema(ref_template=_REF)
    schemas.update(request.pop("$defs"), ChatRequest=request, **_COMPONENTS)
    for path in document["paths"].values():
        for operation in path.values():
            operation["responses"].pop("422", None)
    if has_keys:
        document["components"]["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
        document["security"] = [{"key": []}]
        document["paths"]["/health"]["get"]["security"] = []
    return document
