"""`aim-local serve`: the HTTP service and its page."""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aim_local.bounded import bounded_bytes
from aim_local.errors import UsageError

from . import _extra, _hub, _log, _out, _runtime
from . import _options as opt

if TYPE_CHECKING:
    from aim_local.server.limits import Limits
    from aim_local.server.requests.asked import Defaults
    from aim_local.server.service import Keeping, Service

MIB = 2**20
_KEY_VARIABLE = "AIM_LOCAL_API_KEY"
_MOST_KEYS = 1 << 20  # bytes of a file of keys
_KEY_HELP = f"Requests have to send it; several times for several clients. Also {_KEY_VARIABLE}."


@dataclass(frozen=True)
class ListenOptions:
    """Where it listens, and who may ask."""

    host: Annotated[str, opt.text("Address to listen on. Beyond this machine it needs a key.", "ADDRESS")] = "127.0.0.1"
    port: Annotated[int, opt.whole("Port; 0 takes a free one.")] = 8080
    api_key: Annotated[list[str] | None, opt.text(_KEY_HELP, "KEY", "--api-key")] = None
    api_key_file: Annotated[Path | None, opt.text("Keys, one a line.", "FILE", "--api-key-file")] = None
    no_auth: Annotated[bool, opt.flag("Let everybody ask who reaches the address.", "--no-auth")] = False
    cors: Annotated[list[str] | None, opt.text("A web page's origin that may ask from a browser.", "ORIGIN")] = None
    media_path: Annotated[Path | None, opt.text("Folder whose files requests may name as file://.", "FOLDER")] = None
    allow_http: Annotated[bool, opt.flag("Fetch clips from public http(s) addresses.", "--allow-http")] = False

    def keys(self) -> tuple[str, ...]:
        """Raises UsageError."""
        found = [*(self.api_key or []), *filter(None, [os.environ.get(_KEY_VARIABLE)])]
        if self.api_key_file is not None:
            try:
                data = bounded_bytes(self.api_key_file, _MOST_KEYS, pipes=True)
                lines = [line.strip() for line in data.decode("utf-8-sig").splitlines() if line.strip()]
            except (OSError, ValueError) as e:
                raise UsageError(f"--api-key-file {self.api_key_file}: {e}; give a text file with a key a line") from e
            if not lines:
                raise UsageError(f"--api-key-file {self.api_key_file} is empty; put a key into it")
            found += lines
        if found and self.no_auth:
            raise UsageError("--no-auth and an API key say different things; give one of them")
        return tuple(found)


@dataclass(frozen=True)
class LimitOptions:
    """How much requests may ask; see aim_local/server/limits.py."""

    max_body: Annotated[int, opt.whole("Largest JSON request, in MiB.")] = 64
    max_file: Annotated[int, opt.whole("Largest file, in MiB.")] = 1024
    max_files: Annotated[int, opt.whole("All files that are kept, in MiB.")] = 4096
    fetch_timeout: Annotated[float, opt.duration("For a file from an address.", "--fetch-timeout")] = 60.0
    max_media: Annotated[int, opt.whole("Clips and pictures of a request.")] = 16
    max_frames: Annotated[int, opt.whole("Frames of a clip.")] = 256
    max_answer: Annotated[int, opt.whole("Tokens of an answer.")] = 4096
    queue: Annotated[int, opt.whole("Requests that wait; more get 429.")] = 32
    timeout: Annotated[float, opt.duration("For a request, waiting included.", "--timeout")] = 600.0

    def limits(self, max_pixels: int) -> Limits:
        """max_pixels: of a frame or picture, as the model's LoadConfig has it. Raises UsageError."""
        from aim_local.server.limits import Limits

        for option in fields(self):
            _at_least(option.name, getattr(self, option.name), above=0)
        return Limits(
            body_bytes=self.max_body * MIB,
            file_bytes=self.max_file * MIB,
            files_bytes=self.max_files * MIB,
            fetch_s=self.fetch_timeout,
            n_media=self.max_media,
            n_frames=self.max_frames,
            n_pixels=max_pixels,
            n_answer=self.max_answer,
            n_waiting=self.queue,
            answer_s=self.timeout,
        )


_NAME_HELP = "Name under which the model is served, such as one that a client insists on. Default: its own."
_TOKENS_HELP = (
    "Visual tokens of requests without visual_tokens: off, auto, paper, fast, budget=SHARE ... (`aim-local chat "
    "--help`). Default: auto for videos of models with 64 or more visual tokens a frame, else off."
)
_FRAMES_HELP = "Frames of each clip in requests without frames. Default: the model's own number."


@dataclass(frozen=True)
class DefaultOptions:
    """What holds for requests that say nothing of it: many clients can send no fields of ours."""

    tokens: Annotated[str | None, opt.text(_TOKENS_HELP, "SETTING", "--tokens")] = None
    frames: Annotated[int | None, opt.whole(_FRAMES_HELP, "--frames")] = None

    def defaults(self) -> Defaults:
        """Raises UsageError."""
        from aim_local.server.requests.asked import Defaults
        from aim_local.settings import parse_setting

        return Defaults(None if self.tokens is None else parse_setting(self.tokens), self.frames)


def _at_least(name: str, value: float, above: float | None = None) -> None:
    """Raises UsageError, with the option's name, for a number below 0, or not above `above`."""
    if value < 0 or (above is not None and value <= above):
        wanted = "0 or more" if above is None else f"a number above {above:g}"
        raise UsageError(f"--{name.replace('_', '-')} is {value:g}; give {wanted}")


@dataclass(frozen=True)
class KeepOptions:
    """Conversations that the next question may go on with."""

    keep: Annotated[int, opt.whole("Conversations that are kept computed, so that the next question is quick.")] = 4
    keep_memory: Annotated[int, opt.whole("Memory of all of them together, in MiB.")] = 2048

    def keeping(self) -> Keeping:
        """Raises UsageError."""
        from aim_local.server.service import Keeping

        _at_least("keep", self.keep)
        _at_least("keep_memory", self.keep_memory)
        return Keeping(self.keep, self.keep_memory * MIB)


def serve(
    *,
    model: opt.ModelArg = None,
    mmproj: opt.Mmproj = None,
    listen: ListenOptions,
    name: Annotated[str | None, opt.text(_NAME_HELP, "NAME", "--name")] = None,
    unsaid: DefaultOptions,
    grace: Annotated[float, opt.duration("For the answer in work, when the service is stopped.", "--grace")] = 30.0,
    kept: KeepOptions,
    limit: LimitOptions,
    load: opt.LoadOptions,
    output: opt.OutputOptions,
) -> None:
    """Serve a model over HTTP, to OpenAI's clients and a browser.

    It speaks OpenAI's chat completions, with videos; clients take the address with /v1 behind it. In a browser the
    address shows a page: drop a clip, ask.

    One line on stdout says the address when the model is loaded, one line on stderr each request. Ctrl-C stops it,
    the answer in work is finished first; a second one stops at once. See docs/server.md.
    """
    # 1. everything that can be wrong without the model
    run = _extra.import_server()
    keys, config = listen.keys(), load.load_config()
    run.check_exposed(listen.host, keys, no_auth=listen.no_auth)
    settings = run.Settings(
        host=listen.host,
        port=listen.port,
        limits=limit.limits(config.max_pixels),
        keeping=kept.keeping(),
        grace=grace,
        name=name,
        defaults=unsaid.defaults(),
        keys=keys,
        cors=tuple(listen.cors or ()),
        media_path=listen.media_path,
        allow_http=listen.allow_http,
    )
    _hub.ready(model, **load.asking(output))  # asks in this thread, before the port is open

    # 2. the service, until it is stopped
    loader = partial(_runtime.load, model, mmproj, config, **load.asking(output))
    told = run.Told(partial(_ready, as_json=output.json), None if output.quiet else _log.say, _log.debug)
    code = run.serve(loader, settings, told)
    if code:
        raise typer.Exit(code)


def _ready(address: str, service: Service, *, as_json: bool) -> None:
    assert service.about is not None, "told when it is loaded"
    names = service.about.served.names
    if as_json:  # on one line, for whoever waits for one
        _out.json({"address": address, "model": names[0], **service.about.meta}, indent=None)
    else:
        _out.line(f"{names[0]} is served: the page {address}, for clients {address}/v1", now=True)
