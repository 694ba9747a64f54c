"""What goes wrong between here and the hub, each as one line that says what to do."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from difflib import get_close_matches

from ..errors import HubError
from ..store.known import known_models
from .asking import clean_log

LOG_IN = "log in (`hf auth login`) or set HF_TOKEN"


@contextmanager
def translated(repo: str, file: str = "") -> Iterator[None]:
    """Raises HubError for whatever huggingface_hub, its HTTP library or the disk raises inside."""
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled

    clean_log()
    try:
        yield
    except OfflineModeIsEnabled as e:
        raise HubError(f"{repo} is not in the hub's cache and HF_HUB_OFFLINE is set; unset it") from e
    except HfHubHTTPError as e:
        raise HubError(_refused(e, repo, file)) from e
    except transport_error() as e:
        raise HubError(_unreachable(e, repo)) from e
    except OSError as e:
        raise HubError(_from_cause(e, repo, file)) from e


@contextmanager
def answered() -> Iterator[None]:
    """Raises HubError where what came is no answer of a hub. For the reading of an answer only, inside `translated`."""
    from huggingface_hub.errors import HFValidationError

    try:
        yield
    except HFValidationError as e:
        raise HubError(f"{str(e).rstrip('.')}; check the repository's name") from e
    except OSError:  # refused or not reached, and of some releases a ValueError too
        raise
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError) as e:
        raise HubError(f"{_site()} does not answer as a hub does ({type(e).__name__}); check HF_ENDPOINT") from e


def _from_cause(e: OSError, repo: str, file: str) -> str:
    """The library makes an error of its own of a failed look-up, with what failed behind it."""
    if has_status(e.__cause__):
        return _refused(e.__cause__, repo, file)
    return _unreachable(e.__cause__, repo) if isinstance(e.__cause__, transport_error()) else _disk(e, repo)


def _site() -> str:
    from huggingface_hub import constants

    return str(constants.ENDPOINT)


def transport_error() -> type[Exception]:
    """The base of all errors of the hub library's HTTP library, which has been another one in other releases."""
    from huggingface_hub.errors import HfHubHTTPError

    return next(kind for kind in HfHubHTTPError.__bases__ if kind is not OSError)


def has_status(e: BaseException | None) -> bool:
    """Whether the server answered, and refused."""
    from huggingface_hub.errors import HfHubHTTPError

    return isinstance(e, HfHubHTTPError)


def _refused(e: object, repo: str, file: str) -> str:
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, RepositoryNotFoundError

    status = getattr(getattr(e, "response", None), "status_code", 0)
    what, site = (f"{file} of {repo}" if file else repo), _site()
    if isinstance(e, GatedRepoError):
        return f"{repo} is gated: accept its terms at {site}/{repo}, then {LOG_IN}"
    if isinstance(e, RepositoryNotFoundError):
        return f"no repository {repo} at {site}; {_near(repo)}check its name, or, if it is private, {LOG_IN}"
    if isinstance(e, EntryNotFoundError):
        return f"{repo} has no file {file}: it was changed meanwhile; give the same command again"
    if status in (401, 403):
        return f"{site} does not let you have {what} ({status}); {LOG_IN} with a token that may read it"
    if status == 404:
        return f"no {what} at {site}; check the name"
    if status == 429:
        return f"{site} asks for a pause (429, too many requests); wait some minutes, or {LOG_IN}"
    return f"{site} answered {status} for {what}; try again later, what is downloaded is kept"


def _near(repo: str) -> str:
    repos = {known.repo.lower(): known.repo for known in known_models() if known.repo.lower() != repo.lower()}
    found = get_close_matches(repo.lower(), list(repos), n=1, cutoff=0.8)
    return f"did you mean {repos[found[0]]}? Otherwise " if found else ""


def _unreachable(e: Exception, repo: str) -> str:
    slow = "Timeout" in type(e).__name__
    how = "does not answer in time" if slow else f"cannot be reached ({type(e).__name__})"
    return (
        f"{_site()} {how}, asked for {repo}; check the network, then give the same command again: it "
        "goes on from what is downloaded"
    )


def _disk(e: OSError, repo: str) -> str:
    if e.errno == errno.ENOSPC:
        return (
            f"the disk is full: {e.filename or 'the hub cache'}; free space or set HF_HOME to another disk, then again"
        )
    return f"{repo}: {e.strerror or e} ({e.filename or 'the hub cache'}); check the folder and its permissions"
