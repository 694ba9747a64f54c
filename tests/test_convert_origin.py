"""Both files of a conversion bear one mark of their checkpoint: halves of two models are refused."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import write_json
from family_checkpoints import write_family
from upstream_conversions import job_of, run_all

from aim_local import LoadConfig, VisionLLM
from aim_local.convert.checkpoint import open_checkpoint
from aim_local.errors import ModelError
from aim_local.store import MMPROJ, MODEL
from aim_local.store.gguf_header import read_header

FAMILIES = ("qwen2_vl", "qwen2_5_vl")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("sources")
    return {family: write_family(family, folder / family).folder for family in FAMILIES}


@pytest.mark.thorough
def test_crossed_halves_are_refused(sources: dict[str, Path], tmp_path: Path) -> None:
    """Qwen2-VL and Qwen2.5-VL have one text architecture and projectors of one width."""
    made, typed = {family: tmp_path / family for family in FAMILIES}, tmp_path / "typed"
    jobs = [job_of(sources[family], folder) for family, folder in made.items()]
    jobs.append(job_of(sources["qwen2_vl"], typed, ("bf16", "q8_0")))
    run_all([{"job": job, "published": "", "theirs": []} for job in jobs])
    paths = [folder / name for folder in made.values() for name in (MODEL, MMPROJ)]
    marks = {path: read_header(path).metadata["aim.origin"] for path in paths}
    print(marks)
    assert len(set(marks.values())) == len(FAMILIES)
    config = LoadConfig(n_threads=1)
    for model, mmproj in (("qwen2_vl", "qwen2_5_vl"), ("qwen2_5_vl", "qwen2_vl")):
        with pytest.raises(ModelError, match=r"was converted from another checkpoint than .*take the mmproj"):
            VisionLLM.load(made[model] / MODEL, made[mmproj] / MMPROJ, config=config)
    for pair in ((made["qwen2_vl"] / MODEL, typed / MMPROJ), (typed / MODEL, made["qwen2_vl"] / MMPROJ)):
        with VisionLLM.load(*pair, config=config):
            pass


def test_saving_anew_keeps_the_mark(sources: dict[str, Path], tmp_path: Path) -> None:
    src = tmp_path / "src"
    shutil.copytree(sources["qwen2_vl"], src)
    before = open_checkpoint(src).origin
    content = json.loads((src / "config.json").read_text())
    saved = {**dict(reversed(content.items())), "transformers_version": "9.9", "dtype": "float16", "use_cache": False}
    write_json(src / "config.json", saved)
    assert open_checkpoint(src).origin == before
    write_json(src / "config.json", {**saved, "vocab_size": 7})
    assert open_checkpoint(src).origin != before
