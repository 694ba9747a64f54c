"""AIM's in-LLM pruning written from its formulas, in float64 torch: the oracle for the native staged prefill.

Works on the weights of a Hugging Face Qwen2, Qwen3 or Llama model and really removes tokens: a layer computes and keeps
the rows that are present, nothing is masked. Knows no cache layout, no ubatch, no ggml. It scores with the full square
of all present tokens, earlier turns included.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

TEMPERATURE = 0.1
STEPS = 5


@dataclass
class Layer:
    """What one layer holds: rotated queries and keys [heads, n, d_head], values; of each row [n] its position, and the
    log of the patches it stands for."""

    q: Tensor
    k: Tensor
    v: Tensor
    pos: Tensor
    logs: Tensor


@dataclass
class Result:
    """kept[il]: visual rows that entered layer il; importance[il]: their scores, where il was scored.

    chosen[il]: the rows that the scores of layer il - 1 let into layer il.
    """

    logits: Tensor
    kept: list[list[int]] = field(default_factory=list)
    importance: dict[int, Tensor] = field(default_factory=dict)
    chosen: dict[int, list[int]] = field(default_factory=dict)

    def apart(self, il: int, kept: Sequence[int]) -> float:
        """How far another choice for layer il is from this one: 0 where it is the same.

        From the best row that only `chosen` has to the worst that only `kept` has, as a share of the score at the cut.
        """
        scores = dict(zip(self.kept[il - 1], self.importance[il - 1].tolist(), strict=True))
        lost, taken = set(self.chosen[il]) - set(kept), set(kept) - set(self.chosen[il])
        cut = min(scores[row] for row in self.chosen[il])
        if not lost or cut <= 1e-30:  # zero in float32
            return 0.0
        return (max(scores[row] for row in lost) - min(scores[row] for row in taken)) / cut


def attention_logits(q: Tensor, k: Tensor, logs: Tensor, temperature: float = 1.0) -> Tensor:
    """[h, n, n] of rotated q and k [h, n, d]: a row that stands for s patches has log(s) more, at any temperature, as s
    rows like it would have together; the future is away."""
    n = q.shape[1]
    scores = q @ k.transpose(1, 2) / q.shape[2] ** 0.5 / temperature + logs
    return scores.masked_fill(torch.ones(n, n).triu(1).bool(), -torch.inf)


def walk(m: Tensor) -> Tensor:
    """Where a walker of five steps ends that begins anywhere: [h, n] of transitions m [h, n, n]."""
    p = torch.full((m.shape[0], 1, m.shape[1]), 1 / m.shape[1], dtype=m.dtype)
    for _ in range(STEPS):
        p = p @ m
    return p.squeeze(1)


# importance of all n present rows, [n], from what a layer holds (KV heads repeated); n_query: last rows that ask


def pagerank(held: Layer, n_query: int = 1) -> Tensor:
    logits = attention_logits(held.q, held.k, held.logs, TEMPERATURE)
    return walk(torch.softmax(logits, dim=-1)).square().mean(0).sqrt()


def pagerank_relative(held: Layer, n_query: int = 1) -> Tensor:
    """Over what a walker gets that goes to every patch before it with equal chances."""
    n = len(held.logs)
    sizes = held.logs.exp().expand(n, n).tril()
    return pagerank(held) / walk((sizes / sizes.sum(1, keepdim=True))[None])[0]


def last_query(held: Layer, n_query: int = 1) -> Tensor:
    """FastV: attention of the last row, mean over heads."""
    return torch.softmax(attention_logits(held.q, held.k, held.logs), dim=-1)[:, -1].mean(0)


def asked(held: Layer, n_query: int) -> Tensor:
    """Attention that the last n_query rows pay to each row, summed over them: [h, n]."""
    return torch.softmax(attention_logits(held.q, held.k, held.logs), dim=-1)[:, -n_query:].sum(1)


def question(held: Layer, n_query: int) -> Tensor:
    return asked(held, n_query).mean(0)


def question_value(held: Layer, n_query: int) -> Tensor:
    """Each head's share counts as much as what it would take along: the length of the row's value vector."""
    return (asked(held, n_query) * held.v.norm(dim=-1)).mean(0)


RANKINGS = {f.__name__: f for f in (pagerank, pagerank_relative, last_query, question, question_value)}


def turned_by(n: int, section: Sequence[int] | None, interleaved: bool) -> Tensor:
    """Which of time, row and column (0, 1, 2) turns each of a head's n pairs of numbers.

    section: pairs for each, one after the other; interleaved: time, row, column, time, ... as far as rows and columns
    have pairs, time in all other places.
    """
    if section is None:
        return torch.zeros(n, dtype=torch.long)
    if not interleaved:
        return torch.tensor([axis for axis, count in enumerate(section) for _ in range(count)])
    return torch.tensor([j % 3 if j % 3 and j // 3 < section[j % 3] else 0 for j in range(n)])


class Reference:
    def __init__(self, model: Any) -> None:
        c = model.config
        self.w = {name: value.double() for name, value in model.state_dict().items()}
        self.n_layer, self.n_head, self.n_kv = c.num_hidden_layers, c.num_attention_heads, c.num_key_value_heads
        self.d = getattr(c, "head_dim", None) or c.hidden_size // self.n_head
        self.eps = c.rms_norm_eps
        theta = (getattr(c, "rope_parameters", None) or {}).get("rope_theta") or c.rope_theta
        rope = getattr(c, "rope_parameters", None) or {}
        self.turned_by = turned_by(self.d // 2, rope.get("mrope_section"), bool(rope.get("mrope_interleaved")))
        self.inv_freq = theta ** (-torch.arange(0, self.d, 2, dtype=torch.float64) / self.d)
        self.layers: list[Layer | None] = [None] * self.n_layer
        self.n_past = 0

    def embed(self, tokens: Sequence[int]) -> Tensor:
        return self.w["model.embed_tokens.weight"][list(tokens)]

    def _norm(self, x: Tensor, name: str) -> Tensor:
        """Over the last dimension. Qwen3 norms each head's query and key, others have no weight of that name."""
        if name not in self.w and name.endswith(("q_norm.weight", "k_norm.weight")):
            return x
        return x * (x.square().mean(-1, keepdim=True) + self.eps).rsqrt() * self.w[name]

    def _linear(self, x: Tensor, name: str) -> Tensor:
        y = x @ self.w[name + ".weight"].T
        return y + self.w[name + ".bias"] if name + ".bias" in self.w else y

    def _rotate(self, x: Tensor, pos: Tensor) -> Tensor:
        """pos: time, row and column of each row [n, 3]."""
        angle = pos[:, self.turned_by] * self.inv_freq
        cos, sin = angle.cos(), angle.sin()
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)

    def _heads(self, x: Tensor, n: int) -> Tensor:
        return x.view(len(x), n, self.d).transpose(0, 1)

    def _layer(self, il: int, x: Tensor, pos: Tensor, logs: Tensor) -> tuple[Tensor, Layer]:
        """Rows x [n, d_model] through layer il, on top of what it holds; returns the rows and all it then holds.

        logs: of the patches that each row stands for [n].
        """
        name = f"model.layers.{il}."
        h = self._norm(x, name + "input_layernorm.weight")
        group = self.n_head // self.n_kv
        q = self._heads(self._linear(h, name + "self_attn.q_proj"), self.n_head)
        k = self._heads(self._linear(h, name + "self_attn.k_proj"), self.n_kv)
        q = self._rotate(self._norm(q, name + "self_attn.q_norm.weight"), pos)
        k = self._rotate(self._norm(k, name + "self_attn.k_norm.weight"), pos)
        v = self._heads(self._linear(h, name + "self_attn.v_proj"), self.n_kv)
        k, v = k.repeat_interleave(group, 0), v.repeat_interleave(group, 0)
        held = self.layers[il]
        n_old = 0 if held is None else len(held.pos)
        now = Layer(q, k, v, pos, logs)
        if held is not None:
            old = (held.q, held.k, held.v)
            q_all, k_all, v_all = (torch.cat([a, b], dim=1) for a, b in zip(old, (q, k, v), strict=True))
            now = Layer(q_all, k_all, v_all, torch.cat([held.pos, pos]), torch.cat([held.logs, logs]))
        scores = q @ now.k.transpose(1, 2) / self.d**0.5 + now.logs
        scores = scores.masked_fill(torch.ones(len(x), n_old + len(x)).triu(n_old + 1).bool(), -torch.inf)
        out = (torch.softmax(scores, dim=-1) @ now.v).transpose(0, 1).reshape(len(x), -1)
        x = x + self._linear(out, name + "self_attn.o_proj")
        h = self._norm(x, name + "post_attention_layernorm.weight")
        gate = torch.nn.functional.silu(self._linear(h, name + "mlp.gate_proj"))
        return x + self._linear(gate * self._linear(h, name + "mlp.up_proj"), name + "mlp.down_proj"), now

    def prefill(
        self,
        embeds: Tensor,
        is_visual: Sequence[bool],
        counts: Sequence[int],
        forced: dict[int, list[int]] | None = None,
        score: Any = pagerank,
        sizes: Sequence[int] | None = None,
        n_query: int | None = None,
        rotary: Any = None,
        added: Tensor | None = None,
    ) -> Result:
        """Appends rows embeds [n, d_model]; counts[il] visual rows of them enter layer il.

        forced[il]: the rows that entered layer il elsewhere; they are taken over so that one near tie does not hide
        what comes after it, and `chosen` says what would have been kept here. sizes: patches of each row [n], None: one
        each. n_query: last rows that ask, None: all after the last visual one. rotary: time, row and column of each
        row [n, 3], None: its position. added: [layers, n, d_model], to what leaves the first layers.
        """
        x = embeds.double()
        pos = self._positions(len(x)) if rotary is None else torch.as_tensor(rotary)
        added = torch.zeros(0, *x.shape).double() if added is None else added
        logs = torch.ones(len(x)).double().log() if sizes is None else torch.tensor(list(sizes)).double().log()
        if n_query is None:
            n_query = next((i for i, is_one in enumerate(reversed(is_visual)) if is_one), len(x))
        self.n_past = int(pos[-1].max()) + 1
        visual = torch.full((len(x),), -1)
        visual[torch.tensor(is_visual, dtype=torch.bool)] = torch.arange(sum(is_visual))
        result = Result(logits=x)
        for il in range(self.n_layer):
            present = visual[visual >= 0]
            result.kept.append(present.tolist())
            x, held = self._layer(il, x, pos, logs)
            self.layers[il] = held
            x = x + added[il] if il < len(added) else x
            n_next = counts[il + 1] if il + 1 < self.n_layer else len(present)
            if n_next == len(present):
                continue
            keep = present[:0]
            if n_next > 0:
                scores = score(held, n_query)[-len(x) :][visual >= 0]
                order = torch.sort(scores, descending=True, stable=True)
                keep = present[order.indices[:n_next].sort().values]
                result.importance[il] = scores
                result.chosen[il + 1] = keep.tolist()
            if forced is not None:
                keep = torch.tensor(forced[il + 1], dtype=torch.long)
            stays = (visual < 0) | torch.isin(visual, keep)
            x, pos, logs, visual, added = x[stays], pos[stays], logs[stays], visual[stays], added[:, stays]
        result.logits = self._head(x[-1:])
        return result

    def _positions(self, n: int) -> Tensor:
        """Of n rows of text."""
        return (self.n_past + torch.arange(n))[:, None].expand(-1, 3)

    def decode(self, token: int) -> Tensor:
        """One token through all layers, each on what it holds; next-token logits [n_vocab]."""
        x = self.embed([token])
        pos = self._positions(1)
        self.n_past += 1
        for il in range(self.n_layer):
            x, self.layers[il] = self._layer(il, x, pos, torch.zeros(1).double())
        return self._head(x)

    def _head(self, x: Tensor) -> Tensor:
        head = "lm_head.weight" if "lm_head.weight" in self.w else "model.embed_tokens.weight"
        return (self._norm(x, "model.norm.weight") @ self.w[head].T)[0]
