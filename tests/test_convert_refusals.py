"""What people have instead of a checkpoint: each is told by its own name, in one line, with what to do."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from checkpoints import write_json  # noqa: E402
from family_checkpoints import write_family  # noqa: E402
from safetensors.torch import load_file, save_file  # noqa: E402

from aim_local.convert import ConvertConfig, ConvertError, convert  # noqa: E402
from aim_local.convert.pipeline import plan_work  # noqa: E402
from aim_local.store.gguf_header import read_header  # noqa: E402


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_family("qwen2_5_vl", tmp_path_factory.mktemp("whole") / "src").folder


def edit(src: Path, file: str, **changes: Any) -> None:
    write_json(src / file, {**json.loads((src / file).read_text()), **changes})


def quantised(**config: Any) -> Callable[[Path], None]:
    return lambda src: edit(src, "config.json", quantization_config=config)


def rename_weights(src: Path, change: Callable[[str], str]) -> None:
    state = load_file(src / "model.safetensors")
    save_file({change(name): tensor for name, tensor in state.items()}, src / "model.safetensors")


def quantised_text(src: Path) -> None:
    text = json.loads((src / "config.json").read_text())["text_config"]
    edit(src, "config.json", text_config={**text, "quantization_config": {"quant_method": "awq"}})


def adapter(src: Path) -> None:
    for path in src.iterdir():
        path.unlink()
    write_json(src / "adapter_config.json", {"peft_type": "LORA", "base_model_name_or_path": "Qwen/Qwen2.5-VL-3B"})
    save_file({"base_model.model.x.lora_A.weight": torch.zeros(2, 2)}, src / "adapter_model.safetensors")


def hub_cache(src: Path) -> None:
    """models--ORG--NAME with two snapshots, "main" being the older one."""
    files = list(src.iterdir())
    for name in ("aaaa", "bbbb"):
        (src / "snapshots" / name).mkdir(parents=True)
    for path in files:
        shutil.move(path, src / "snapshots" / "aaaa" / path.name)
    (src / "refs").mkdir()
    (src / "refs" / "main").write_text("aaaa\n")


def whole_cache(src: Path) -> None:
    inner = src / "models--Org--name"
    files = list(src.iterdir())
    inner.mkdir()
    for path in files:
        shutil.move(path, inner / path.name)
    hub_cache(inner)


def gguf_folder(src: Path) -> None:
    for path in src.iterdir():
        path.unlink()
    (src / "tiny-Q4_K_M.gguf").write_bytes(b"GGUF")
    (src / "mmproj-tiny-f16.GGUF").write_bytes(b"GGUF")


def pickled(src: Path) -> None:
    torch.save(load_file(src / "model.safetensors"), src / "pytorch_model.bin")
    (src / "model.safetensors").unlink()


def lose_a_shard(src: Path) -> None:
    state = load_file(src / "model.safetensors")
    (src / "model.safetensors").unlink()
    names = sorted(state)
    files = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    write_json(src / "model.safetensors.index.json", {"weight_map": {n: files[i % 2] for i, n in enumerate(names)}})
    save_file({n: state[n] for n in names[::2]}, src / files[0])


def drop(*names: str) -> Callable[[Path], None]:
    def remove(src: Path) -> None:
        for name in names:
            (src / name).unlink()

    return remove


def break_link(name: str) -> Callable[[Path], None]:
    def change(src: Path) -> None:
        (src / name).unlink()
        (src / name).symlink_to(src.parent / "blobs" / "abc")

    return change


def break_a_shard(src: Path) -> None:
    lose_a_shard(src)
    (src / "model-00002-of-00002.safetensors").symlink_to("../blobs/abc")


def no_mean(src: Path) -> None:
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (src / name).exists():
            content = json.loads((src / name).read_text())
            for part in (content, content.get("image_processor", {})):
                part.pop("image_mean", None)
            write_json(src / name, content)


def no_processor(src: Path) -> None:
    for name in ("preprocessor_config.json", "processor_config.json"):
        (src / name).unlink(missing_ok=True)


REFUSED: dict[str, tuple[Callable[[Path], None], str]] = {
    "awq": (
        quantised(quant_method="awq", bits=4),
        r"quantised with AWQ .*made from, and choose the weights with text_type",
    ),
    "gptq": (quantised(quant_method="gptq"), r"quantised with GPTQ"),
    "bitsandbytes 4": (
        quantised(quant_method="bitsandbytes", load_in_4bit=True, load_in_8bit=False),
        r"quantised with bitsandbytes \(4 bit\)",
    ),
    "bitsandbytes 8": (quantised(load_in_8bit=True), r"quantised with bitsandbytes \(8 bit\)"),
    "fp8": (quantised(quant_method="fp8"), r"quantised with FP8"),
    "compressed": (quantised(quant_method="compressed-tensors"), r"quantised with compressed-tensors"),
    "unheard of": (quantised(quant_method="best-ever"), r"quantised with best-ever"),
    "bent": (quantised(quant_method=["awq"]), r"quantised with \['awq'\]"),
    "text tower": (quantised_text, r"quantised with AWQ"),
    "adapter": (adapter, r"holds an adapter \(LoRA\), not a whole model; merge it .*merge_and_unload"),
    "peft names": (
        lambda src: rename_weights(src, lambda n: f"base_model.model.{n}"),
        r"has PEFT's tensors, .*base_model\.model\..*merge it first",
    ),
    "hub repository": (hub_cache, r"repository in the hub's cache.*give the snapshot: .*snapshots/aaaa"),
    "hub cache": (whole_cache, r"is the hub's cache; give one model's snapshot \(.*models--Org--name/snapshots/aaaa\)"),
    "gguf": (gguf_folder, r"holds GGUF files \(mmproj-tiny-f16\.GGUF, tiny-Q4_K_M\.gguf\).*directly as MODEL"),
    "pickle": (pickled, r"only as a PyTorch pickle \(pytorch_model\.bin\); .*save_pretrained it anew"),
    "shard": (lose_a_shard, r"lacks 1 of 2 weight shards \(model-00002-of-00002\.safetensors\)"),
    "tokenizer": (drop("tokenizer.json"), r"has no tokenizer \(tokenizer\.json"),
    "broken link": (
        break_link("model.safetensors"),
        r"src/model\.safetensors is a broken link: it points to .*blobs/abc, which is not there; download the file",
    ),
    "broken link of a shard": (break_a_shard, r"00002-of-00002\.safetensors is a broken link: it points to \.\./blobs"),
    "no processor": (
        no_processor,
        r"has no preprocessor_config\.json, nor an image_processor in .*copy the file from the model's repository",
    ),
    "no mean": (no_mean, r"has no image_mean in its image processor \(preprocessor_config\.json or"),
    "text only": (
        lambda src: edit(src, "config.json", architectures=["Qwen2ForCausalLM"]),
        r"architecture Qwen2ForCausalLM is not supported; supported are .*Qwen2-VL, Qwen2\.5-VL, Qwen3-VL, .*Gemma 3",
    ),
    "unknown text tower": (
        lambda src: edit(src, "config.json", text_config={"model_type": "mamba"}),
        r"qwen2_5_vl with a mamba language tower is not supported; supported are",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_each_by_its_own_name(kind: str, whole: Path, tmp_path: Path) -> None:
    src = tmp_path / "src"
    shutil.copytree(whole, src)
    change, line = REFUSED[kind]
    change(src)
    with pytest.raises(ConvertError, match=line) as caught:
        convert(src, tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert "download it again" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["src"]


def test_nothing_is_written_into_the_source(whole: Path, tmp_path: Path) -> None:
    src = tmp_path / "src"
    shutil.copytree(whole, src)
    (tmp_path / "link").symlink_to(src)
    before = sorted(src.rglob("*"))
    for out in (src / "sub", src / "a" / "b", tmp_path / "link" / "sub", src / ".." / "src" / "sub"):
        with pytest.raises(ConvertError, match=r"is inside the checkpoint folder .*src, .*; name a folder elsewhere"):
            convert(src, out)
    assert sorted(src.rglob("*")) == before


TEMPLATES = [
    (drop("chat_template.jinja"), r"has no chat_template\.jinja, nor one in .*; chat will write turns as ChatML"),
    (drop("tokenizer_config.json"), r"has no tokenizer_config\.json, without which .*copy the file from the model"),
    (lambda _: None, ""),
]


@pytest.mark.parametrize(("change", "line"), TEMPLATES)
def test_no_chat_template_is_planned(change: Callable[[Path], None], line: str, whole: Path, tmp_path: Path) -> None:
    shutil.copytree(whole, src := tmp_path / "src")
    change(src)
    told = [note for note in plan_work(src, ConvertConfig()).notes if "no chat template was written" in note]
    assert len(told) == bool(line)
    assert all(re.search(line, note) and "\n" not in note for note in told)


@pytest.mark.thorough
@pytest.mark.parametrize(("change", "line"), TEMPLATES)
def test_no_chat_template_is_told(change: Callable[[Path], None], line: str, whole: Path, tmp_path: Path) -> None:
    src = tmp_path / "src"
    shutil.copytree(whole, src)
    change(src)
    result = convert(src, tmp_path / "out")
    assert ("tokenizer.chat_template" in read_header(result.model).metadata) == (not line)
    told = [note for note in result.notes if "no chat template was written" in note]
    assert len(told) == bool(line)
    assert all(re.search(line, note) and "\n" not in note for note in told)


def test_a_gguf_file_is_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "model-q4.GGUF"
    path.write_bytes(b"GGUF")
    with pytest.raises(ConvertError, match=r"is a GGUF file: it needs no converting, use it directly as MODEL"):
        convert(path, tmp_path / "out")


def test_gemma_needs_its_tokenizer_model(tmp_path: Path) -> None:
    src = write_family("gemma3", tmp_path / "src").folder
    (src / "tokenizer.model").unlink()
    with pytest.raises(ConvertError, match=r"has no tokenizer\.model, which a Gemma 3 model needs; copy it"):
        convert(src, tmp_path / "out")


def test_what_the_converter_says_is_one_line(whole: Path, tmp_path: Path) -> None:
    """A config that is right in kind and wrong in number: found in the child, told by the parent."""
    src = tmp_path / "src"
    shutil.copytree(whole, src)
    edit(src, "config.json", vision_config={"model_type": "qwen2_5_vl", "depth": 4, "fullatt_block_indexes": [1, 2]})
    with pytest.raises(ConvertError, match=r"llama\.cpp's converter cannot read .* \(ValueError: Invalid fullatt") as e:
        convert(src, tmp_path / "out")
    assert "\n" not in str(e.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["src"]
