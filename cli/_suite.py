"""Which questions `compare` asks: the options for them, and the suite that they name. Reading it is the library's."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from aim_local.errors import UsageError

from . import _options as opt

if TYPE_CHECKING:
    from aim_local.lab.compare.records import Suite

WORLD_NAMES = ("plain", "varied")  # aim_local.demo.WORLDS, which needs numpy
_SUITE_HELP = "Questions: a JSONL suite, or annotations of VideoMME or MVBench."


@dataclass(frozen=True)
class SuiteOptions:
    """Either a file of questions or a drawn suite."""

    suite: Annotated[Path | None, opt.text(_SUITE_HELP, "FILE")] = None
    demo: Annotated[bool, opt.flag("Draw a suite of clips with the bundled generator.", "--demo")] = False
    n: Annotated[int, opt.whole("Clips that --demo draws.", "--n")] = 200
    seed: Annotated[int, opt.whole("Which clips --demo draws.")] = 0
    world: Annotated[str, opt.text("What --demo draws: plain or varied.", "WORLD", "--world")] = "plain"
    media: Annotated[Path | None, opt.text("Where a published suite's videos are.", "FOLDER")] = None
    limit: Annotated[int | None, opt.whole("Only the first N questions.")] = None

    def check(self) -> None:
        """Raises UsageError."""
        if self.demo == (self.suite is not None):
            raise UsageError("give either --suite FILE or --demo")
        if self.world not in WORLD_NAMES:
            raise UsageError(f"--world is {self.world!r}; allowed are {', '.join(WORLD_NAMES)}")
        if self.world != WORLD_NAMES[0] and not self.demo:
            raise UsageError("--world is for --demo; drop it with --suite")

    @property
    def folder(self) -> Path:
        """Where results go if nothing else was asked."""
        if self.suite is None:
            return Path("compare-demo" if self.world == WORLD_NAMES[0] else f"compare-demo-{self.world}")
        name = self.suite.resolve().parent.name if self.suite.name == "suite.jsonl" else self.suite.stem
        return Path(f"compare-{name}")

    def read(self, out: Path) -> Suite:
        """The questions; a demo suite is drawn into `out`. Raises UsageError, SuiteError."""
        from aim_local.demo import WORLDS
        from aim_local.lab.compare.suite import draw_demo_suite, find_suite, load_suite

        if self.suite is not None:
            return find_suite(self.suite, self.media, self.limit)
        if self.media is not None:
            raise UsageError("--media is for a published suite; drop it with --demo")
        drawn = draw_demo_suite(out / "suite", self.n, self.seed, WORLDS[self.world])
        name = "demo" if self.world == WORLD_NAMES[0] else f"demo-{self.world}"
        return replace(load_suite(drawn, limit=self.limit), name=name)
