"""Tensor names: the schemes found in the wild, brought to one (`sanitize`).

scheme                 language tower                  vision tower                         projector
today's transformers   language_model.model.layers.0   vision_tower.encoder                 multi_modal_projector
  some 4.x and 5.x     model.language_model.layers.0   model.vision_tower.vision_model      model.multi_modal_projector
transformers' first     language_model.model.layers.0   vision_tower.vision_model            multi_modal_projector
original releases      model.layers.0                  model.vision_tower.vision_tower...   model.mm_projector.0
a tower on its own     -                               vision_model, or nothing             -

Ours: `text.` and the name inside Qwen2Model or LlamaModel, `text.lm_head.weight`, `vision.` and the name inside the
tower, `projector.{0,2}.{weight,bias}`, `newline`.
"""

import re
from collections.abc import Mapping

from .checkpoint import TensorRef
from .errors import ConvertError

TEXT = re.compile(
    r"^(?:model\.language_model\.|language_model\.model\.|language_model\.|model\.)?((?:embed_tokens|layers|norm)\..+)$"
)
HEAD = re.compile(r"^(?:model\.|language_model\.)*(lm_head\.weight)$")
VISION = re.compile(r"^(?:model\.)?(?:vision_tower\.)+(?:vision_model\.)?(.+)$")
LONE_VISION = re.compile(r"^(?:vision_model\.)?((?:embeddings|encoder|pre_layrnorm|post_layernorm|head)\..+)$")
PROJECTOR = re.compile(r"^(?:model\.)?multi_modal_projector\.linear_([12])\.(weight|bias)$")
OLD_PROJECTOR = re.compile(r"^(?:model\.)?mm_projector\.([02])\.(weight|bias)$")
NEWLINE = re.compile(r"^(?:model\.)?image_newline$")

# parts no graph of ours reads: buffers, a pooling head, the norm after the last hidden state, a tower's text half
IGNORED = re.compile(
    r"rotary_emb\.inv_freq$|position_ids$|^vision\.head\.|^vision\.post_layernorm\."
    r"|^text_model\.|^logit_scale$|^logit_bias$|^visual_projection\.|^text_projection\."
)


def sanitize(name: str, tower: bool = False) -> str:
    """Our name of the tensor that a checkpoint calls `name`, or `name` itself where no scheme knows it.

    `tower`: the file is a vision tower on its own, whose names carry no `vision_tower.` prefix.
    """
    if tower:
        found = LONE_VISION.match(name) or VISION.match(name)
        return f"vision.{found[1]}" if found and not name.startswith("text_model.") else name
    if found := PROJECTOR.match(name):
        return f"projector.{0 if found[1] == '1' else 2}.{found[2]}"
    if found := OLD_PROJECTOR.match(name):
        return f"projector.{found[1]}.{found[2]}"
    if NEWLINE.match(name):
        return "newline"
    if found := VISION.match(name):
        return f"vision.{found[1]}"
    if found := HEAD.match(name) or TEXT.match(name):
        return f"text.{found[1]}"
    return name


def sanitize_all(tensors: Mapping[str, TensorRef], tower: bool = False) -> dict[str, TensorRef]:
    """All tensors under our names, without the ignored ones. Two names of one tensor are an error."""
    found: dict[str, TensorRef] = {}
    for name, ref in tensors.items():
        ours = sanitize(name, tower)
        if IGNORED.search(ours):
            continue
        if ours in found:
            raise ConvertError(f"{found[ours].name} and {name} are the same tensor under two names; keep one of them")
        found[ours] = ref
    return found
