"""A mmproj whose head is damaged is refused, or works; it never ends the process. The bends: damaged_heads.py."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import damaged_heads
from family_case import converted
from fuzz.sanitizer import SLOWER
from thorough import few

from aim_local.errors import ModelError
from aim_local.models.tower_head import check_tower_head
from aim_local.store.gguf_header import read_header

FAMILIES = ("qwen2_5_vl", "smolvlm", "llava_next_video")  # towers of three kinds: any size, squares, tiles


@pytest.fixture(scope="module")
def pair_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A family's folder of model and mmproj."""
    return lambda family: converted(family, tmp_path_factory) / "gguf"


def bent(source: Path, key: str, name: str, path: Path) -> Path:
    path.write_bytes(next(data for k, n, data in damaged_heads.bent(source) if (k, n) == (key, name)))
    return path


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a child per file is a fork")
@pytest.mark.parametrize("given", few([("smolvlm", 7), *((family, 1) for family in FAMILIES)], 1), ids=str)
def test_every_bent_key_is_refused_or_works(pair_of: Callable[[str], Path], given: tuple[str, int]) -> None:
    """Or every seventh: all damages have their turn then, too."""
    family, step = given
    env = os.environ | {"GGML_NO_BACKTRACE": "1", "OMP_THREAD_LIMIT": "1", "OMP_WAIT_POLICY": "passive"}
    run = subprocess.run(
        [sys.executable, damaged_heads.__file__, str(step), pair_of(family)],
        env=env,
        capture_output=True,
        text=True,
        timeout=300 * SLOWER,
    )
    assert run.returncode == 0, run.stderr
    found = [json.loads(line) for line in run.stdout.splitlines() if line.startswith("[")]
    counts = Counter("works" if not said else "head" if "damaged" in said else "refused" for *_, said in found)
    print(counts)
    assert [row for row in found if row[3].startswith("DIED")] == []
    assert [row for row in found if "\n" in row[3]] == []
    assert counts["works"] > 17 // step
    assert counts["head"] > 167 // step


@pytest.mark.parametrize(
    ("key", "name", "needed"),
    [
        ("clip.vision.block_count", "uint32 0", "is 0 (uint32); it has to be 1 to 1000"),
        ("clip.vision.attention.head_count", "int32 -1", "is -1 (int32); it has to be uint32, 0 to 65536"),
        ("clip.vision.attention.head_count", "uint32 7", "is 7 (uint32); it has to be 1 or more, and to divide"),
        ("clip.vision.embedding_length", "uint32 7", "the weights of the first layer (v.blk.0.ln1.weight) are 32 wide"),
        ("clip.vision.image_std", "three floats", "is (0.0, 0.0, 0.0) (array of float32); it has to be array of"),
        ("clip.has_vision_encoder", "text", "is 'abc' (text); it has to be bool"),
        ("clip.vision.projector.scale_factor", "uint32 7", "mm.model.fc.weight takes 512 values"),
        ("clip.vision.projector.scale_factor", "missing", "is missing; mm.model.fc.weight takes 512 values"),
        ("aim.vision.resample", "uint32 7", "it has to be a whole number, 0 to 5"),
    ],
)
def test_a_refusal_says_what_came_and_what_is_allowed(
    pair_of: Callable[[str], Path], tmp_path: Path, key: str, name: str, needed: str
) -> None:
    path = bent(pair_of("smolvlm") / "mmproj.gguf", key, name, tmp_path / "mmproj.gguf")
    with pytest.raises(ModelError) as caught:
        check_tower_head(read_header(path))
    said = str(caught.value)
    print(said)
    assert said.startswith(f"{path}: {key} is ")
    assert needed in said
    assert said.endswith("The file is damaged: download or convert it again")


@pytest.mark.parametrize("family", few(FAMILIES, ("smolvlm", "llava_next_video")))
def test_whole_files_pass(pair_of: Callable[[str], Path], family: str) -> None:
    check_tower_head(read_header(pair_of(family) / "mmproj.gguf"))
