"""HTTP with a hub: a GET followed to where it leads, and answers that are bounded. What an answer means: its callers.

Of a redirect or a refusal nothing is read but its head: their bodies may have no end. Errors are those of
huggingface_hub, for `failures.translated`.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

from ..errors import HubError
from ..visible import visible

if TYPE_CHECKING:
    from httpx2 import Response

T = TypeVar("T")
MOST_BYTES = 16 << 20  # of an answer that is kept in memory: a listing of 50,000 files
MOST_SECONDS = 60.0  # for all of such an answer, and for the head of any
_MOST_HOPS = 20


@contextmanager
def asked(url: str, headers: Mapping[str, str] | None = None) -> Iterator[Response]:
    """The answer to a GET, its body still to come, in no encoding but the one that the server insists on.

    A token goes to the hub alone: the library leaves it out where a redirect leads to another host.
    """
    from huggingface_hub import constants, get_session
    from huggingface_hub.utils import build_hf_headers

    told = {**build_hf_headers(), "Accept-Encoding": "identity", **(headers or {})}
    session = get_session()
    request = session.build_request("GET", url, headers=told, timeout=constants.HF_HUB_DOWNLOAD_TIMEOUT)
    for _ in range(_MOST_HOPS):
        response = head_of(partial(session.send, request, stream=True, follow_redirects=False))
        try:
            if response.next_request is None:
                yield response
                return
            request = response.next_request
        finally:
            response.close()
    raise HubError(f"{constants.ENDPOINT} leads from one place to the next without end; check HF_ENDPOINT")


def head_of(call: Callable[[], T]) -> T:
    """What a call brings that waits for the head of an answer. Raises HubError where the head has no end in time.

    The library has a bound for each byte only. Such a call is left to its thread, which goes with the process.
    """
    from huggingface_hub import constants

    ended = queue.SimpleQueue[tuple[T | None, BaseException | None]]()

    def work() -> None:
        try:
            ended.put((call(), None))
        except BaseException as e:
            ended.put((None, e))

    threading.Thread(target=work, name="aim-local hub", daemon=True).start()
    try:
        found, error = ended.get(timeout=MOST_SECONDS)
    except queue.Empty:
        how = f"after {MOST_SECONDS:.0f} s its answer has only begun"
        raise HubError(f"{constants.ENDPOINT} does not answer as a hub does ({how}); check HF_ENDPOINT") from None
    if error is not None:
        raise error
    return cast(T, found)


def raise_refusal(response: Response) -> None:
    """Raises HfHubHTTPError of the kind that the hub's code names where the server refused; its own words are left."""
    from huggingface_hub.utils import hf_raise_for_status

    code = {name: value for name, value in response.headers.items() if name.lower() == "x-error-code"}
    hf_raise_for_status(type(response)(response.status_code, headers=code, request=response.request))


def whole_answer(url: str) -> bytes:
    """A short answer. Raises HubError for one that has no end, in bytes or in time, and what HTTP raises."""
    from huggingface_hub import constants

    found, end = bytearray(), time.monotonic() + MOST_SECONDS
    with asked(url) as response:
        raise_refusal(response)
        coded = response.headers.get("Content-Encoding", "identity")
        if response.status_code != 200 or coded.strip().lower() != "identity":
            what = f"status {response.status_code}, encoding {ascii(coded)[:40]}"
            raise HubError(f"{constants.ENDPOINT} does not answer as a hub does ({what}); check HF_ENDPOINT")
        for chunk in response.iter_raw():
            found += chunk
            if len(found) > MOST_BYTES or time.monotonic() > end:
                how = f"{len(found) >> 20} MiB in {time.monotonic() - end + MOST_SECONDS:.0f} s, and more to come"
                raise HubError(f"{constants.ENDPOINT} does not answer as a hub does ({how}); check HF_ENDPOINT")
    return bytes(found)


def clean_log() -> None:
    """What the library logs, which may be a server's words, does nothing to a terminal. Idempotent."""
    for handler in logging.getLogger("huggingface_hub").handlers:
        handler.addFilter(_made_visible)


def _made_visible(record: logging.LogRecord) -> bool:
    record.msg, record.args = visible(record.getMessage()), ()
    return True
