"""The training forward pass and the runtime are one model: the bundled weights, read back, give the same logits."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from gguf_files import write_folder  # noqa: E402
from thorough import few  # noqa: E402

from aim_local import LoadConfig, VisionLLM, VisualTokenConfig, store  # noqa: E402
from aim_local.demo import held_out  # noqa: E402
from aim_local.demo.clips import Clip  # noqa: E402
from aim_local.demo.training import from_gguf, make_tokenizer  # noqa: E402
from aim_local.demo.training.data import TAIL, Encoder, collate  # noqa: E402
from aim_local.demo.training.model import N_PREFIX, build, merged, packed_forward, thinned  # noqa: E402
from aim_local.demo.training.toys import BUNDLED  # noqa: E402
from aim_local.demo.training.train_demo_model import Trainer, normalised  # noqa: E402
from aim_local.demo.world import draw, make_scene, questions, sampled_frames  # noqa: E402
from aim_local.native.visual import merge_rows  # noqa: E402

FOLDER = store.bundled_folder()
TOLERANCE = 2e-3  # of the largest logit: the runtime rounds activations to F16
LAYOUTS: dict[str, tuple[VisualTokenConfig, dict[str, Any]]] = {
    "all": (VisualTokenConfig.off(), {}),
    "merged": (VisualTokenConfig(prune_layers=None), {"share": 0.25}),
    "late drop": (VisualTokenConfig(merge_retain=1.0, prune_layers=(8, 9)), {"prune": (8, 9)}),
    "merged, late drop": (VisualTokenConfig(prune_layers=(8, 9)), {"share": 0.25, "prune": (8, 9)}),
}


@pytest.fixture(scope="module")
def pair() -> Any:
    if FOLDER is None:
        pytest.skip("this checkout has no bundled model")
    tokenizer = make_tokenizer.build()
    model = build(tokenizer, BUNDLED)
    from_gguf.load(model, FOLDER)
    exact = {"vision_precision": "exact", "prefill_precision": "exact"}
    config = LoadConfig(type_k="f32", type_v="f32", flash_attn=False, n_threads=1, **exact)
    with VisionLLM.load(FOLDER, config=config) as llm:
        yield model.eval(), Encoder(tokenizer), llm


@pytest.mark.parametrize("layout", few(LAYOUTS, [name for name in LAYOUTS if name != "all"]))
def test_training_and_runtime_agree(pair: Any, layout: str, capsys: pytest.CaptureFixture[str]) -> None:
    config, options = LAYOUTS[layout]
    found = [difference(pair, clip, config, options) for clip in held_out(5)]
    with capsys.disabled():
        print(f"\n  {layout}: differences {', '.join(f'{d:.1e}' for d in found)} of the largest logit")
    # a clip may differ where two similarities are nearly equal: rounding then merges another pair
    assert np.median(found) < TOLERANCE
    assert "share" in options or max(found) < TOLERANCE


def difference(pair: Any, clip: Clip, config: VisualTokenConfig, options: dict[str, Any]) -> float:
    """Largest difference of the next-token logits, in parts of the largest logit."""
    model, encoder, llm = pair
    frames = clip.frames()[sampled_frames()]
    got = llm.prefill(clip.question, [frames], config).logits
    question = torch.tensor(encoder.ids("\n" + clip.question + TAIL))[None, None]  # [1, 1, L]
    pixels = normalised(torch.from_numpy(frames[None]))
    with torch.no_grad():
        out = packed_forward(model, pixels, encoder.prefix(), question, **options)
    want = out["logits"][0, 0, -1].numpy()
    return float(np.abs(got - want).max() / np.abs(want).max())


@pytest.mark.parametrize("share", [0.5, 0.25, 0.125])
def test_training_merges_as_the_runtime_does(share: float) -> None:
    rows = np.random.default_rng(0).normal(size=(4, 16, 160)).astype(np.float32)
    got = merged(torch.from_numpy(rows), share).numpy()
    want = np.stack([merge_rows(frame, share).rows for frame in rows])
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_thinning_keeps_prefix_and_questions() -> None:
    torch.manual_seed(0)
    picked = {tuple(thinned(N_PREFIX + 9 + 5, 9, 4).tolist()) for _ in range(50)}
    assert len(picked) > 20, "the visual rows are picked at random"
    for rows in picked:
        assert rows == tuple(sorted(rows))
        assert len(rows) == N_PREFIX + 4 + 5
        assert set(range(N_PREFIX)) | set(range(N_PREFIX + 9, N_PREFIX + 14)) <= set(rows)


@pytest.mark.thorough
def test_a_step_moves_what_is_not_frozen(tmp_path: Path) -> None:
    make_tokenizer.build().save_pretrained(tmp_path)
    rates = {"lr": 1e-3, "muon_lr": 1e-3, "aux": 0.3, "minutes": 1.0}
    args = Namespace(
        toy="bundled", tokenizer=tmp_path, seed=0, freeze_below=5, compile=False, merge=True, prune=True, **rates
    )
    trainer = Trainer(args)
    trainer.clock = 20  # past the warm-up
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    scene = make_scene(0)
    asked = questions(scene)[:2]
    trainer.step(collate([(scene, draw(scene, frames=sampled_frames()), asked)], trainer.encoder, BUNDLED))
    moved = {n for n, value in trainer.model.state_dict().items() if not torch.equal(value, before[n])}
    text = "model.language_model."
    late = {n for n in before if any(n.startswith(f"{text}layers.{il}.") for il in range(5, 12))}
    assert moved == late | {f"{text}norm.weight", "lm_head.weight"}


def test_another_model_is_refused(pair: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not the demo model"):
        from_gguf.load(pair[0], write_folder(tmp_path / "other"))
