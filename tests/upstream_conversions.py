"""Conversions through llama.cpp's converter, many in one process: starting one for each would take most of the time.

`python upstream_conversions.py` reads a list of tasks from stdin: `job`, that of a child of `convert`; `published`, the
checkpoint with the names of tensors that it is published with; `theirs`, the two files that the converter is to write
of that by itself, as its own script does, or none.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from aim_local.native.installed import converter_folder


def job_of(source: Path, target: Path, types: tuple[str, str] = ("f32", "f32")) -> dict[str, Any]:
    """What `convert` tells its child for `source`; both files go to the folder `target`."""
    from aim_local.convert.pipeline import ConvertConfig, plan_work
    from aim_local.convert.upstream import UpstreamWork

    work = plan_work(source, ConvertConfig(*types, name="tiny"))
    assert isinstance(work, UpstreamWork)
    target.mkdir(parents=True)
    return asdict(work.job(target))


def write_models(sources: Mapping[str, Path], root: Path) -> None:
    """NAME/model.gguf and NAME/mmproj.gguf below `root` of each checkpoint, in float32, as `convert` has them made."""
    jobs = [job_of(source, root / name) for name, source in sources.items()]
    run_all([{"job": job, "published": "", "theirs": []} for job in jobs])


def run_all(tasks: Sequence[Mapping[str, Any]]) -> None:
    """Runs the tasks in a process that sees the converter and its gguf package first, as a child of `convert` does."""
    folder = converter_folder()
    path = os.pathsep.join([str(folder), str(folder / "gguf-py"), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, __file__],
        input=json.dumps(tasks),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]


def write_theirs(source: Path, theirs: Sequence[str], pre: str) -> None:
    """As convert_hf_to_gguf.py: the towers' classes are what get_model_architecture finds in config.json."""
    import gguf
    import torch
    from conversion import ModelBase, ModelType, get_model_architecture, get_model_class
    from conversion.base import TextModel

    TextModel.get_vocab_base_pre = lambda self, tokenizer: pre  # the tokenizer is none of those it knows
    with torch.inference_mode():
        for kind, path in zip((ModelType.TEXT, ModelType.MMPROJ), theirs, strict=True):
            hparams = ModelBase.load_hparams(source, False)
            known = get_model_class(get_model_architecture(hparams, kind), mmproj=kind == ModelType.MMPROJ)
            known(source, gguf.LlamaFileType.ALL_F32, Path(path), model_name="tiny").write()


def main() -> None:
    from aim_local.convert import upstream_worker

    tasks = json.load(sys.stdin)
    for task in tasks:
        said: list[dict[str, Any]] = []
        upstream_worker.run(task["job"], lambda said=said, **message: said.append(message))
        assert said[0] == {"left": []}, said[0]
    with upstream_worker.stand_in():
        for task in tasks:
            if task["theirs"]:
                write_theirs(Path(task["published"]), task["theirs"], task["job"]["pre"])


if __name__ == "__main__":
    main()
