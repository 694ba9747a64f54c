"""`aim-local explain`: pictures of which visual tokens were merged, ranked and kept."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from aim_local.errors import UsageError

from . import _log, _out, _runtime
from . import _options as opt
from ._groups import Without
from ._interrupt import check_answer
from ._output_files import output_files
from ._turn import Turn

if TYPE_CHECKING:
    from aim_local.lab.explain import Explanation

_PROMPT_HELP = "The question. What is kept depends on it."
_TOKENS_HELP = "Visual tokens, as in chat. Default: paper, which also prunes, whatever the model."
_LAYER_HELP = "Draw this layer in the PNG; may be given several times. Default: where something changes."


@dataclass(frozen=True)
class TokenOptions(opt.TokenOptions):
    """Here the default is another one."""

    tokens: Annotated[str | None, opt.text(_TOKENS_HELP, "SETTING")] = None


def explain(
    *,
    media: opt.MediaOptions,
    prompt: Annotated[str | None, opt.words(_PROMPT_HELP, "--prompt", "-p")] = None,
    mmproj: opt.Mmproj = None,
    frames: opt.FrameOptions,
    tokens: TokenOptions,
    load: Annotated[opt.LoadOptions, Without("no_cache")] = opt.MEASURED,
    answer: Annotated[opt.AnswerOptions, Without("temp", "seed")] = opt.AnswerOptions(max_tokens=128),
    layer: Annotated[list[int] | None, opt.whole(_LAYER_HELP)] = None,
    out: Annotated[
        Path | None, opt.text("Write explain.png and explain.html there. Default: explain.", "FOLDER")
    ] = None,
    png: Annotated[Path | None, opt.text("Write the contact sheet to this file.", "FILE")] = None,
    html: Annotated[Path | None, opt.text("Write the page to this file.", "FILE")] = None,
    output: opt.OutputOptions,
) -> None:
    """Show which visual tokens a question keeps.

    A contact sheet (PNG) and a page with a layer slider (HTML). Merged tokens, what survives into each layer, and
    importance as a heat map, on the frames the model saw. Files that exist are replaced. With --json and no place
    to write to, only the numbers are printed.
    """
    # 1. everything that can be wrong without the model
    if prompt is None or not prompt.strip():
        raise UsageError("the question is missing; give one: -p 'What happens?'")
    model, files = media.given(load.max_pixels)
    if not files:
        raise UsageError("nothing to explain without a picture; give a clip: aim-local explain clip.mp4 -p ...")
    frames.sampling()
    tokens.config()  # what it refuses is told before a model is loaded
    config, generate = load.load_config(), answer.generate_config()
    places = output_files(out, png, html, output.json)

    # 2. the model, the question, the files
    with _runtime.load(model, mmproj, config, **load.asking(output)) as llm:
        from aim_local.drawing.layers import check_layers
        from aim_local.lab import explain as library

        check_layers(layer or [], llm.text.n_layer)
        sampling = frames.sampling(llm.default_frames)
        with Turn(bars=not output.quiet, text=False) as turn:
            found = library.explain(
                llm, prompt.strip(), files, tokens.for_model(llm.model),
                generate=generate, sampling=sampling, system=answer.system, progress=turn.progress,
                should_stop=turn.should_stop,
            )  # fmt: skip
    check_answer(found.answer.stats)
    _print(found, library.write_files(found, places, layer), output)


def _print(found: Explanation, written: dict[str, Path], output: opt.OutputOptions) -> None:
    from aim_local.lab.explain import heading, report

    if not output.quiet:
        _log.warn(found.answer.warnings)
    if output.json:
        _out.json({**report(found), "files": {kind: str(path) for kind, path in written.items()}})
        return
    for line in heading(found)[1:]:
        if not (output.quiet and line.startswith("Note:")):
            _out.line(line)
    for path in written.values():
        _out.line(f"wrote {path}")
