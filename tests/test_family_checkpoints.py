"""The checkpoints of every family: transformers loads them; they answer to text, pictures and videos."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from family_checkpoints import FAMILIES, Loaded, clip, load_family, message, picture, write_family

EXPECTED = {  # rows of media in the prompt: a picture of 100 x 160, a video of 4 frames of 112 x 140
    "qwen2_vl": (4 * 6, 2 * 4 * 5),
    "qwen2_5_vl": (4 * 6, 2 * 4 * 5),
    "qwen3_vl": (3 * 5, 2 * 4 * 4),
    "smolvlm": (13 * 16, 4 * 16),
    "internvl3": (7 * 16, 4 * 16),
    "internvl3_5": (7 * 16, 4 * 16),
    "gemma3": (16, 4 * 16),
    "llava_next": (64 + 8 * 12 + 8, 4 * (64 + 8 * 10 + 8)),
    "llava_next_mistral": (64 + 8 * 12 + 8, 4 * (64 + 8 * 10 + 8)),
    "llava_next_video": (64 + 8 * 12 + 8, 4 * 16),
}

TOLD = ("qwen2_5_vl", "smolvlm", "gemma3", "llava_next_video")


@pytest.fixture(scope="module")
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load_family(write_family(request.param, tmp_path_factory.mktemp(request.param)).folder)


@pytest.mark.parametrize(
    ("loaded", "family"),
    [pytest.param(f, f, marks=() if f in TOLD else pytest.mark.thorough) for f in FAMILIES],
    indirect=["loaded"],
    ids=FAMILIES,
)
def test_answers_to_text_a_picture_and_a_video(loaded: Loaded, family: str) -> None:
    config = loaded.model.config
    image_id = getattr(config, "image_token_id", None) or config.image_token_index
    video_id = getattr(config, "video_token_id", None) or image_id
    text = loaded.inputs([message("user", "How many shapes are there?")])
    seen = [loaded.logits(text)]
    one = loaded.inputs([message("user", ("image",), "Describe it.")], pictures=[picture(100, 160)])
    rows = [int((one["input_ids"] == image_id).sum())]
    seen.append(loaded.logits(one))
    video = clip(4, 112, 140, fps=2.0)
    if loaded.has_videos:
        two = loaded.inputs([message("user", ("video",), "Describe it.")], clips=[video])
    else:
        frames = list(video.frames)
        two = loaded.inputs([message("user", *[("image",)] * 4, "Describe it.")], pictures=frames)
    rows.append(int((np.isin(two["input_ids"], [image_id, video_id])).sum()))
    seen.append(loaded.logits(two))
    print(family, rows, [float(np.abs(s).max()) for s in seen])
    assert tuple(rows) == EXPECTED[family]
    assert all(np.isfinite(s).all() and s.std() > 0.1 for s in seen)
    assert not np.allclose(seen[1], seen[2])


def test_the_weights_depend_on_the_seed_alone(tmp_path: Path) -> None:
    folders = [write_family("qwen2_vl", tmp_path / str(i), seed=seed).folder for i, seed in enumerate((1, 1, 2))]
    data = [(folder / "model.safetensors").read_bytes() for folder in folders]
    assert data[0] == data[1] != data[2]
