"""The page of `explain` in a headless browser: what it draws, slider, keyboard, no scripts, phone and desktop.

Skipped where no Chromium is installed.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from chromium import DESKTOP, PHONE, Page, browser

import aim_local
from aim_local import VisionLLM
from aim_local.drawing.colours import FOG, FOG_SHARE
from aim_local.lab.explain import Explanation, explain, page_html

pytestmark = pytest.mark.skipif(browser() is None, reason="no Chromium")

CLIP = Path(aim_local.__file__).parent / "data" / "clips" / "needle.mp4"


@pytest.fixture(scope="module")
def found() -> Explanation:
    with VisionLLM.load() as llm:
        return explain(llm, "What appears in the middle?", [CLIP])


@pytest.fixture(scope="module")
def path(found: Explanation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "explain.html"
    file.write_text(page_html(found), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with Page(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_quiet_and_narrow(page: Page, path: Path, size: tuple[int, int], dark: bool) -> None:
    page.open(path, size, dark)
    assert page.messages == []
    assert [url for url in page.requests if not url.startswith("data:")] == [path.resolve().as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.evaluate("!document.getElementById('app').hidden")


def test_it_opens_where_something_was_dropped(page: Page, path: Path) -> None:
    page.open(path, DESKTOP)
    assert page.evaluate("document.getElementById('layer').value") == "7"
    assert "22 of 33 visual tokens (67 %)" in page.evaluate("document.getElementById('caption').textContent")


def test_kept_patches_are_the_picture_and_dropped_are_grey(page: Page, path: Path, found: Explanation) -> None:
    """The middle of every slot on the canvases, against the frames (JPEG loses a little) and the kept set."""
    page.open(path, DESKTOP)
    page.evaluate("show(8)")
    kept, n = set(found.trace.kept[8].tolist()), {True: 0, False: 0}
    for i, grid in enumerate(found.trace.grids):
        drawn = page.evaluate(
            f"[...Array(16).keys()].map(s => [...data.pictures[{i}].canvas.getContext('2d')"
            ".getImageData(s % 4 * 112 + 56, Math.floor(s / 4) * 112 + 56, 1, 1).data].slice(0, 3))"
        )
        plain = grid.pixels[14::28, 14::28].reshape(16, 3).astype(float)
        for slot, token in enumerate(grid.owners.ravel().tolist()):
            y, x = slot // 4 * 28 + 14, slot % 4 * 28 + 14
            if np.ptp(grid.pixels[y - 3 : y + 3, x - 3 : x + 3], axis=(0, 1)).max() > 12:
                continue  # the edge of a shape: scaling decides
            n[token in kept] += 1
            got, want = np.array(drawn[slot]), plain[slot]
            if token not in kept:
                assert np.ptp(got) <= 3
                want = FOG_SHARE * FOG + (1 - FOG_SHARE) * (want @ [0.299, 0.587, 0.114])
            assert np.abs(got - want).max() <= 16, (i, slot)
    assert min(n.values()) > 10


def test_every_layer_counts_right(page: Page, path: Path, found: Explanation) -> None:
    page.open(path, DESKTOP)
    for il, kept in enumerate(found.trace.kept):
        page.evaluate(f"show({il})")
        counts = page.evaluate("data.pictures.map(p => p.count.textContent)")
        own = [set(grid.owners.ravel().tolist()) for grid in found.trace.grids]
        assert counts == [f"{len(tokens & set(kept.tolist()))}/{len(tokens)}" for tokens in own]


def press(page: Page, *keys: str) -> None:
    codes = {"ArrowLeft": 37, "ArrowRight": 39, "ArrowDown": 40, " ": 32, "Tab": 9}
    for key in keys:
        for kind in ("rawKeyDown", "keyUp"):
            page.call("Input.dispatchKeyEvent", type=kind, key=key, windowsVirtualKeyCode=codes[key])


def test_keyboard(page: Page, path: Path) -> None:
    """Arrows move the slider when it has the focus, and walk over the patches of a picture when that has it."""
    page.open(path, DESKTOP)
    page.evaluate("document.getElementById('layer').focus()")
    press(page, "ArrowRight")
    assert page.evaluate("state.il") == 8
    page.evaluate("data.pictures[0].canvas.focus()")
    press(page, "ArrowRight", "ArrowDown")
    assert page.evaluate("state.cell") == 5
    token = page.evaluate("data.pictures[0].owners[5]")
    assert page.evaluate("document.getElementById('detail').textContent").startswith(f"Token {token} of frame 0")
    assert page.evaluate("state.il") == 8


def test_heat(page: Page, path: Path) -> None:
    """Where a layer was not scored, the switch goes to one that was; the colours are those of the levels."""
    page.open(path, DESKTOP)
    page.evaluate("show(0), document.getElementById('heat').click()")
    assert page.evaluate("[state.il, state.heat]") == [6, True]
    assert "Shown: their importance" in page.evaluate("document.getElementById('caption').textContent")
    page.evaluate("show(3)")
    assert "scored are layers 6, 7" in page.evaluate("document.getElementById('caption').textContent")
    assert page.messages == []


def test_without_scripts_the_sheet_shows(page: Page, path: Path) -> None:
    page.open(path, PHONE, scripts=False)
    root = page.call("DOM.getDocument", depth=-1)["root"]["nodeId"]
    image = page.call("DOM.querySelector", nodeId=root, selector="img.sheet")["nodeId"]
    assert page.call("DOM.getBoxModel", nodeId=image)["model"]["height"] > 300
