"""The table of families in docs/models.md, made from the registries by `python -m aim_local.cli._families`."""

from __future__ import annotations

from aim_local.convert.families import FAMILIES as OURS
from aim_local.convert.families import UPSTREAM
from aim_local.models.card import Card
from aim_local.models.registry import FAMILIES
from aim_local.native.staged import architectures

HEAD = (
    "family", "checkpoints", "converter", "runtime", "language tower", "a video in the prompt", "token merging",
    "pruning, weighing by size",
)  # fmt: skip


def table() -> str:
    """Markdown, a line for each family, and one for what no family takes."""
    converters = {name: f"`convert/families/{name}.py`" for name in (family.name for family in OURS)}
    converters |= {family.name: "llama.cpp's own, driven by us" for family in UPSTREAM}
    rows = [_row(card, family.__module__, converters) for family in FAMILIES for card in family.cards]
    staged = ", ".join(architectures())
    rest = (
        "any other mmproj that llama.cpp runs", "made by llama.cpp's own converter", "none",
        "`aim_local/models/mtmd.py`", "any", "a picture a frame, no times", "where positions are plain",
        f"where positions are plain, in {staged}",
    )  # fmt: skip
    lines = [HEAD, ("---",) * len(HEAD), *rows, rest]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _row(card: Card, module: str, converters: dict[str, str]) -> tuple[str, ...]:
    where = f"`aim_local/models/{module.rpartition('.')[2]}.py`"
    made = ", ".join(dict.fromkeys(converters[name] for name in card.converters))
    return (card.title, card.checkpoints, made, where, ", ".join(card.text), card.video, card.merging, _pruning(card))


def _pruning(card: Card) -> str:
    staged = architectures()
    if all(name in staged for name in card.text):
        return "yes"
    return f"no: {card.refused}"


if __name__ == "__main__":
    print(table(), end="")
