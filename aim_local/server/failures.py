"""What a request can get wrong, as HTTP says it: a status, one clear line, and the field it is about."""

from __future__ import annotations

from typing import Any

from ..visible import visible

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    415: "invalid_request_error",
    422: "invalid_request_error",
    429: "rate_limit_error",
    499: "client_closed_request",
    503: "overloaded_error",
    504: "timeout_error",
}
MOST_CHARACTERS = 500  # of a message; more is quoted from the request, or from a library's complaint about it
_MOST_OF_A_PATH = 250


class RequestError(Exception):
    """A request that is refused.

    status: of HTTP, from 400 on. param: the field of the request, such as "messages[0].content[1].video_url.url".
    code: a word for programs, such as "model_not_found". headers: to go with the answer, such as Retry-After.
    What message and param quote of a request has escapes for what a terminal acts on, and neither is without end.
    """

    def __init__(
        self, status: int, message: str, *, param: str = "", code: str = "", headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(_within(message, MOST_CHARACTERS))
        self.status, self.param, self.code, self.headers = status, _within(param, _MOST_OF_A_PATH), code, headers or {}

    def body(self) -> dict[str, Any]:
        """The answer's JSON, in OpenAI's form."""
        kind = _TYPES.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param or None, "code": self.code or None}}


def _within(text: str, n: int) -> str:
    """Visible, and at most n characters of it."""
    found = visible(text[: n + 1])
    return found if len(found) <= n else f"{found[: n - 3]}..."


def stopping() -> RequestError:
    return RequestError(503, "the service is stopping", code="stopping", headers={"Retry-After": "10"})


def internal_error(e: BaseException) -> RequestError:
    """A fault of ours: its kind is told, what it says may be nobody's business."""
    return RequestError(500, f"internal error: {type(e).__name__}", code="internal_error")
