"""What tests of `plan` share: clips, and the bundled model without its weights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from media_fixtures import write_clip

from aim_local.engine.model import Model, open_model


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("clips")
    wide = write_clip(folder / "wide.mp4", n_frames=50, size=(128, 72))
    tall = write_clip(folder / "tall.mkv", n_frames=33, size=(64, 96), b_frames=2)
    return [wide, tall]


@pytest.fixture(scope="module")
def model() -> Iterator[Model]:
    with closing(open_model(weights=False)) as found:
        yield found
