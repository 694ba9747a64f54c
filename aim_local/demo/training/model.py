"""The demo model: a small one of a family of `convert`, and a forward pass that answers many questions at once.

The weights live in transformers' own modules, so `save_pretrained` is the export. `packed_forward` computes what
those modules compute, on rows laid out as [prefix | visual rows | question 1 | question 2 | ...]: every question
starts at the position right after the visual rows and sees only them and itself.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoConfig, AutoModelForImageTextToText, PreTrainedModel, PreTrainedTokenizerBase

from aim_local.convert.families import DEMO_FAMILY
from aim_local.demo.training.toys import PATCH, Toy
from aim_local.demo.world import COLOURS, KINDS
from aim_local.reduction.planner import layer_counts, schedule

N_PREFIX = 3  # <|im_start|> user <space>
AUX_LAYER = 5  # text layer whose visual rows also learn what moves where
PruneLayers = tuple[int, int]  # l1 and l2 of planner.schedule
# classes of the auxiliary labels, class 0 is "nothing here"
N_COLOURS, N_KINDS, N_WAYS, N_PARTS, N_CORNERS = len(COLOURS) + 1, len(KINDS) + 1, 6, 4, 5


def build(tokenizer: PreTrainedTokenizerBase, toy: Toy) -> PreTrainedModel:
    """A freshly initialised model for this tokenizer, about 4 million parameters, with the family's own towers."""
    vision = {
        "hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 4,
        "image_size": toy.side, "patch_size": PATCH, "vision_use_head": False,
    }  # fmt: skip
    text = {
        "vocab_size": len(tokenizer), "hidden_size": 160, "intermediate_size": 320, "num_hidden_layers": 12,
        "num_attention_heads": 5, "num_key_value_heads": 5, "max_position_embeddings": 4096,
        "tie_word_embeddings": False, "eos_token_id": tokenizer.eos_token_id, "bos_token_id": None,
        "pad_token_id": tokenizer.pad_token_id, "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
    }  # fmt: skip
    config = AutoConfig.for_model(
        DEMO_FAMILY.name, vision_config=vision, text_config=text, vision_feature_layer=-1,
        vision_feature_select_strategy="full", image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"), image_grid_pinpoints=[[toy.side, toy.side]],
        tie_word_embeddings=False,
    )  # fmt: skip
    model: PreTrainedModel = AutoModelForImageTextToText.from_config(config)
    initialise(model)
    return model


def initialise(model: PreTrainedModel) -> None:
    """1/sqrt(fan_in) weights, residual branches scaled down with depth: quicker than 0.02 at this width."""
    for name, p in model.named_parameters():
        if p.ndim >= 2 and "embed" not in name:
            std = p[0].numel() ** -0.5
            if name.endswith(("o_proj.weight", "out_proj.weight", "down_proj.weight", "fc2.weight")):
                std *= 0.3
            nn.init.normal_(p, std=std)
    nn.init.normal_(model.model.vision_tower.embeddings.patch_embedding.weight, std=588**-0.5)
    nn.init.normal_(model.model.vision_tower.embeddings.position_embedding.weight, std=0.3)
    nn.init.normal_(model.model.language_model.embed_tokens.weight, std=0.5)
    nn.init.normal_(model.lm_head.weight, std=0.02)


class AuxHeads(nn.Module):
    """Linear classifiers used in training only: which colour and kind covers a patch or a visual token, and,
    in the text model, which way that shape moves, in which part of the clip it came and in which corner it is."""

    def __init__(self, vision: int = 128, text: int = 160) -> None:
        super().__init__()
        self.patch = nn.Linear(vision, N_COLOURS + N_KINDS)
        self.token = nn.Linear(text, N_COLOURS + N_KINDS)
        self.motion = nn.Linear(text, N_COLOURS + N_KINDS + N_WAYS + N_PARTS + N_CORNERS)


def split_heads(x: Tensor, n: int) -> Tensor:
    """[B, S, n * d] -> [B, n, S, d]."""
    return x.unflatten(-1, (n, -1)).transpose(1, 2)


def vision_rows(tower: nn.Module, pixels: Tensor) -> Tensor:
    """pixels [N, 3, side, side] -> features of the last encoder layer [N, grid^2, 128], no post layer norm."""
    e = tower.embeddings
    patches = pixels.unflatten(2, (-1, PATCH)).unflatten(4, (-1, PATCH))  # [N, 3, grid, 14, grid, 14]
    patches = patches.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)  # [N, grid^2, 588]
    x = F.linear(patches, e.patch_embedding.weight.flatten(1), e.patch_embedding.bias) + e.position_embedding.weight
    for layer in tower.encoder.layers:
        h, a = layer.layer_norm1(x), layer.self_attn
        q, k, v = (split_heads(f(h), a.num_heads) for f in (a.q_proj, a.k_proj, a.v_proj))
        mixed = attention(q * q.shape[-1] ** -0.5 @ k.mT) @ v
        x = x + a.out_proj(mixed.transpose(1, 2).flatten(2))
        x = x + layer.mlp(layer.layer_norm2(x))
    return x


def pooled(x: Tensor) -> Tensor:
    """Bilinear halving of an even patch grid, which is the mean of 2x2: [N, grid^2, d] -> [N, grid^2 / 4, d]."""
    half = math.isqrt(x.shape[1]) // 2
    x = x.unflatten(1, (half, 2, half, 2))
    return x.mean(dim=(2, 4)).flatten(1, 2)


def merge_round(x: Tensor, r: int) -> Tensor:
    """One round of bipartite soft matching on the rows of each of N frames: [N, n, d] -> [N, n - r, d].

    Even rows are sources, odd rows destinations; the r sources most similar to a destination go into the plain mean
    of that destination, and what is left keeps its order.
    """
    unit = F.normalize(x.detach().float(), dim=-1)
    with torch.autocast("cpu", enabled=False):
        similarity, into = (unit[:, 0::2] @ unit[:, 1::2].mT).max(-1)  # [N, sources]
    chosen = similarity.argsort(dim=1, descending=True, stable=True)[:, :r]
    source, into = 2 * chosen, 2 * into.gather(1, chosen) + 1  # [N, r] rows of x
    wide = (-1, -1, x.shape[-1])
    total = x.scatter_add(1, into[..., None].expand(wide), x.gather(1, source[..., None].expand(wide)))
    ones = x.new_ones(x.shape[:2])
    count = ones.scatter_add(1, into, ones[:, :r])
    stays = torch.ones_like(count, dtype=torch.bool).scatter(1, source, False)
    return (total / count[..., None])[stays].unflatten(0, (x.shape[0], -1))


def merged(x: Tensor, share: float) -> Tensor:
    """Rounds of merging until max(1, floor(n * share)) rows of each frame are left: [N, n, d] -> [N, target, d]."""
    target = max(1, math.floor(x.shape[1] * share + 1e-9))
    while (n := x.shape[1]) > target:
        x = merge_round(x, min(n - target, n // 2))
    return x


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of [B, n, S, d] with cos and sin [S, d], Qwen2's half-split layout."""
    a, b = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-b, a), dim=-1) * sin


def norm(x: Tensor, layer: nn.Module) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],), layer.weight, layer.variance_epsilon)


def attention(scores: Tensor, bias: Tensor | None = None) -> Tensor:
    """Softmax over the last dimension in the scores' own type: autocast would copy them to float32 and back."""
    with torch.autocast("cpu", enabled=False):
        return (scores if bias is None else scores + bias.to(scores.dtype)).softmax(-1)


def causal_bias(n: int) -> Tensor:
    """[n, n]: 0 where a row may look, -inf above the diagonal."""
    return torch.full((n, n), float("-inf")).triu(1)


def packed_attention(q: Tensor, k: Tensor, v: Tensor, n: int, n_slot: int) -> Tensor:
    """Causal attention over the n shared rows; each question slot sees the shared rows and itself. [B, n, S, d] each.

    Written out, because on a CPU the fused kernel's backward is slower than these small products.
    """
    q = q * q.shape[-1] ** -0.5
    shared_q, shared_k, shared_v = q[:, :, :n], k[:, :, :n], v[:, :, :n]
    shared = attention(shared_q @ shared_k.mT, causal_bias(n)) @ shared_v
    own_q, own_k, own_v = (t[:, :, n:].unflatten(2, (-1, n_slot)) for t in (q, k, v))  # [B, n, Q, L, d]
    to_own = own_q @ own_k.mT  # [B, n, Q, L, L]
    to_own = to_own + causal_bias(n_slot).to(to_own.dtype)
    to_shared = q[:, :, n:] @ shared_k.mT  # [B, n, Q * L, shared]
    weights = attention(torch.cat((to_shared, to_own.flatten(2, 3)), -1))
    own = (weights[..., n:].unflatten(2, (-1, n_slot)) @ own_v).flatten(2, 3)
    return torch.cat((shared, weights[..., :n] @ shared_v + own), dim=2)


def thinned(n_rows: int, n_visual: int, n_keep: int) -> Tensor:
    """Which of n_rows packed rows stay when n_keep of the n_visual visual ones do, picked at random: ascending."""
    stays = torch.randperm(n_visual)[:n_keep].sort().values
    return torch.cat((torch.arange(N_PREFIX), N_PREFIX + stays, torch.arange(N_PREFIX + n_visual, n_rows)))


def text_rows(
    model: nn.Module, x: Tensor, cos: Tensor, sin: Tensor, counts: Sequence[int], n_slot: int
) -> tuple[Tensor, Tensor]:
    """Run the layers, counts[il] visual rows entering layer il; rows that stay keep their positions.

    x [B, S, 160] with counts[0] visual rows -> final hidden rows [B, S - pruned, 160], rows after AUX_LAYER.
    """
    tapped, n_visual = x, counts[0]
    for i, layer in enumerate(model.layers):
        if counts[i] < n_visual:
            rows = thinned(x.shape[1], n_visual, counts[i])
            x, cos, sin, n_visual = x[:, rows], cos[rows], sin[rows], counts[i]
        n_shared = N_PREFIX + n_visual
        h, a = norm(x, layer.input_layernorm), layer.self_attn
        q, k, v = (split_heads(f(h), 5) for f in (a.q_proj, a.k_proj, a.v_proj))
        q, k = rotate(q, cos, sin).to(v.dtype), rotate(k, cos, sin).to(v.dtype)
        x = x + a.o_proj(packed_attention(q, k, v, n_shared, n_slot).transpose(1, 2).flatten(2))
        h, m = norm(x, layer.post_attention_layernorm), layer.mlp
        x = x + m.down_proj(F.silu(m.gate_proj(h)) * m.up_proj(h))
        tapped = x if i == AUX_LAYER else tapped
    return norm(x, model.norm), tapped


def rotary(
    shared: Tensor, n_questions: int, n_slot: int, head_dim: int = 32, theta: float = 10000.0
) -> tuple[Tensor, Tensor]:
    """cos and sin [S, head_dim] of the packed rows, S = shared + questions * slot; positions restart per question.

    shared: positions of the shared rows, rising; a question's begin one behind the last.
    """
    positions = torch.cat((shared, shared[-1] + 1 + torch.arange(n_questions * n_slot) % n_slot))
    freq = theta ** (-torch.arange(0, head_dim, 2) / head_dim)
    angle = (positions[:, None] * freq).repeat(1, 2)  # [S, head_dim]
    return angle.cos(), angle.sin()


def visual_counts(n_visual: int, prune: PruneLayers | None, n_layer: int) -> list[int]:
    """Visual rows entering each layer; none leave before AUX_LAYER has been read."""
    if prune is None:
        return [n_visual] * n_layer
    assert prune[0] >= AUX_LAYER, prune
    return layer_counts(n_visual, schedule(n_layer, *prune))


def packed_forward(
    model: PreTrainedModel, pixels: Tensor, prefix: Tensor, tokens: Tensor, share: float = 1.0,
    prune: PruneLayers | None = None, gaps: Tensor | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Answer Q questions about each of B clips.

    Args:
        pixels: float [B, T, 3, side, side], normalised.
        prefix: token ids before the visual rows, [N_PREFIX].
        tokens: question, answer and padding ids, [B, Q, L].
        share: retained share of each frame's visual tokens; the others are merged into them.
        prune: (l1, l2) between which random visual rows leave, as many as the runtime's schedule prunes.
        gaps: how far behind the row before it each visual row stands, [visual rows]; 1 each by default.
    Returns:
        logits [B, Q, L, vocab]; patch [B * T, grid^2, 128], token [B * T, pooled^2, 160] and motion [B, visual rows but
        the newline, 160] features for the auxiliary heads.
    """
    core, b = model.model, pixels.shape[0]
    embed = core.language_model.embed_tokens
    patch = vision_rows(core.vision_tower, pixels.flatten(0, 1))
    p = core.multi_modal_projector
    token = pooled(p.linear_2(F.gelu(p.linear_1(patch))))  # [B * T, pooled^2, 160]
    visual = merged(token.float(), share).reshape(b, -1, token.shape[-1])
    rows = (embed(prefix).expand(b, -1, -1), visual, core.image_newline.expand(b, 1, -1), embed(tokens.flatten(1)))
    n_visual = visual.shape[1] + 1
    counts = visual_counts(n_visual, prune, len(core.language_model.layers))
    at = torch.cat((torch.ones(N_PREFIX), gaps if gaps is not None else torch.ones(n_visual))).cumsum(0) - 1
    cos, sin = rotary(at, *tokens.shape[1:])
    hidden, tapped = text_rows(core.language_model, torch.cat(rows, dim=1), cos, sin, counts, tokens.shape[2])
    answers = hidden[:, N_PREFIX + counts[-1] :]
    logits = model.lm_head(answers).unflatten(1, tokens.shape[1:])
    return {"logits": logits, "patch": patch, "token": token, "motion": tapped[:, N_PREFIX : N_PREFIX + n_visual - 1]}
