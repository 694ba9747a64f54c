"""What a conversion through llama.cpp's converter leaves: types of both towers, progress, and nothing where it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from convert_models import After
from family_checkpoints import write_family

import aim_local
from aim_local.convert import ConvertConfig, ConvertError, convert
from aim_local.convert.pipeline import plan_work
from aim_local.convert.upstream import UpstreamWork


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family("qwen3_vl", tmp_path_factory.mktemp("source") / "tiny-vl").folder


@pytest.mark.thorough
def test_types_that_the_converter_cannot_write(source: Path, tmp_path: Path) -> None:
    """Through the checkpoint's own type, then quantised; progress reaches its end and never goes back."""
    seen: list[tuple[int, int, str]] = []
    result = convert(source, tmp_path / "out", ConvertConfig("q4_k_m", "q4_0"), progress=lambda *at: seen.append(at))
    assert sorted(p.name for p in result.folder.iterdir()) == ["aim.json", "mmproj.gguf", "model.gguf"]
    assert {"Q4_0", "F32"} <= set(result.types["mmproj"])
    assert set(result.types["model"]) - {"F32", "F16", "BF16"}
    manifest = json.loads((result.folder / "aim.json").read_text())
    assert manifest["architecture"] == "qwen3_vl"
    assert manifest["text_architecture"] == "qwen3vl"
    assert manifest["projector"] == "qwen3vl_merger"
    assert [manifest["files"][key]["type"] for key in ("model", "mmproj")] == ["q4_k_m", "q4_0"]
    assert manifest["files"]["model"]["bytes"] == result.n_bytes["model"] == result.model.stat().st_size
    done = [at[0] for at in seen]
    assert done == sorted(done)
    assert seen[-1][0] == seen[-1][1] == seen[0][1]
    with aim_local.VisionLLM.load(result.folder) as llm:
        assert llm.generate("hello", generate=aim_local.GenerateConfig(max_tokens=2)).stats.n_prompt


@pytest.mark.thorough
def test_an_interrupt_leaves_nothing(source: Path, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "other" / "out", progress=After(KeyboardInterrupt(), 0.1))
    assert not list(tmp_path.iterdir())


def test_what_is_refused_before_anything_runs(source: Path, tmp_path: Path) -> None:
    with pytest.raises(ConvertError, match="carries its vision tower; leave vision_tower out"):
        convert(source, tmp_path / "out", ConvertConfig(vision_tower=source))
    work = plan_work(source, ConvertConfig())
    assert isinstance(work, UpstreamWork)
    work.check_left(["model.language_model.layers.0.self_attn.rotary_emb.inv_freq"])  # a buffer
    with pytest.raises(ConvertError, match=r"1 tensors that a qwen3_vl model does not know \(extra\.weight\)"):
        work.check_left(["extra.weight"])


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_killed_conversion_takes_its_child_along(source: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle: no model folder, no process; what is left is hidden and goes with the next conversion."""
    code = (
        "import signal, sys\nfrom aim_local.convert import upstream, convert\n"
        "real = upstream.run_converter\n"
        "def watched(job):\n"
        " for message in real(job):\n  print('at work', flush=True)\n  signal.pause()\n  yield message\n"
        "upstream.run_converter = watched\nconvert(*sys.argv[1:])\n"
    )
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-c", code, str(source), str(out)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "at work\n"
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    assert children
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not out.exists()
    assert all(p.name.startswith(".out.") for p in tmp_path.iterdir())
    deadline = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{pid}") for pid in children):
        assert time.monotonic() < deadline, "the child outlived its parent"
        time.sleep(0.05)
