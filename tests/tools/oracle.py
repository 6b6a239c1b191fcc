#!/usr/bin/python3
"""The forward pass in double precision: what the logits of a GGUF model really are.

Weights are dequantised exactly, activations and K/V are never rounded below float64, rotations
use NumPy's float64 sine and cosine, softmax is over the full row. Slow and obvious on purpose:
this is the meaning that engines are measured against, for qwen3, qwen2, llama and gemma3.

  oracle.py MODEL < ids > logits      little-endian float64 rows of n_vocab, one a token
"""
import math
import sys

import numpy as np

import gguf

QUERY_ROWS = 512  # queries at a time, to bound the attention matrix


def half(x):
    return x.astype(np.float16).astype(np.float64)


def int8(x):
    """8 bits and a scale for each head of each position. x: [n][heads][d]"""
    step = np.abs(x).max(axis=-1, keepdims=True) / 127
    return np.rint(x / np.where(step > 0, step, 1)) * step


def affine4(x):
    """4 bits, with a scale and an offset (halves) for each 32 values, the last ones fewer."""
    parts = []
    for part in np.split(x, range(32, x.shape[-1], 32), axis=-1):
        offset = half(part.min(axis=-1, keepdims=True))
        step = half((part.max(axis=-1, keepdims=True) - offset) / 15)
        code = np.rint((part - offset) / np.where(step > 0, step, np.inf))
        parts.append(offset + step * np.clip(code, 0, 15))
    return np.concatenate(parts, axis=-1)


ROUNDINGS = {"exact": lambda x: x, "f16": half, "int8": int8, "affine4": affine4}


class Model:
    """A GGUF file's hyper-parameters and exact weights. kv: K and V are rounded as a cache of
    this type (of ROUNDINGS) keeps them: the error of any engine with such a cache."""

    def __init__(self, path, kv="exact"):
        f = gguf.File(path)
        self.keep = ROUNDINGS[kv]
        self.tensors, self.meta = f.tensors, f.meta
        self.arch = f.meta["general.architecture"]
        if self.arch not in ("qwen3", "qwen2", "llama", "gemma3"):
            raise ValueError(f"{path}: architecture {self.arch} is not handled")
        self.layers, self.dim = self.key("block_count"), self.key("embedding_length")
        self.heads = self.key("attention.head_count")
        self.kv_heads = self.key("attention.head_count_kv", self.heads)
        self.head_dim = self.key("attention.key_length", self.dim // self.heads)
        self.eps = self.key("attention.layer_norm_rms_epsilon")
        self.vocab = self.tensors["token_embd.weight"].shape[0]
        # gemma3: layers 5, 11, ... (from 0) see everything, the others a window
        self.window = self.key("attention.sliding_window", 0) if self.arch == "gemma3" else 0
        self.softcap = self.key("final_logit_softcapping", 0) if self.arch == "gemma3" else 0
        self.query_scale = self.key("attention.scale", 0) if self.arch == "llama" else 0
        self.query_scale = self.query_scale or 1 / math.sqrt(self.head_dim)
        if self.arch == "gemma3" and self.layers == 62:  # the 27B scales by the embedding's width
            self.query_scale = 1 / math.sqrt(self.dim / self.heads)
        self._cache = {}

    def key(self, name, *default):
        full = f"{self.arch}.{name}"
        return self.meta.get(full, *default) if default else self.meta[full]

    def weight(self, name):
        """A tensor's values, or None when the file has no such tensor."""
        if name not in self._cache:
            t = self.tensors.get(name)
            self._cache[name] = None if t is None else t.values()
        return self._cache[name]

    def slides(self, layer):
        return self.window > 0 and layer % 6 < 5

    # --- rotation ---

    def _yarn(self, freq, base, factor):
        """YaRN: slow frequencies are stretched, fast ones kept, those between mixed; and a
        scale of the rotated vectors."""
        trained = self.key("rope.scaling.original_context_length", self.key("context_length"))
        fast, slow = (self.key("rope.scaling.yarn_beta_fast", 32.0),
                      self.key("rope.scaling.yarn_beta_slow", 1.0))
        n = self.head_dim

        def pair(turns):
            return n * math.log(trained / (turns * 2 * math.pi)) / (2 * math.log(base))

        first, last = max(0, math.floor(pair(fast))), min(n - 1, math.ceil(pair(slow)))
        ramp = np.clip((np.arange(n // 2) - first) / max(0.001, last - first), 0, 1)
        scale = self.key("rope.scaling.attn_factor", 1.0) * (1 + 0.1 * math.log(factor))
        return freq / factor * ramp + freq * (1 - ramp), scale

    def rotation(self, layer, n):
        """cos and sin [n][head_dim / 2] of positions 0 to n - 1."""
        base = self.key("rope.freq_base", 10000.0)
        kind = self.key("rope.scaling.type", "linear")
        factor = self.key("rope.scaling.factor", self.key("rope.scale_linear", 0)) or 1.0
        if kind == "none":
            factor = 1.0
        if self.slides(layer):
            base, factor = self.key("rope.freq_base_swa", 10000.0), 1.0
        freq = base ** (-np.arange(0, self.head_dim, 2) / self.head_dim)
        divisors = self.weight("rope_freqs.weight")
        if divisors is not None:
            freq = freq / divisors
        scale = 1.0
        if kind == "yarn":
            freq, scale = self._yarn(freq, base, factor)
        else:
            freq = freq / factor
        angle = np.arange(n)[:, None] * freq
        return np.cos(angle) * scale, np.sin(angle) * scale

    def rotate(self, x, cos, sin):
        """x [n][heads][head_dim]: llama turns neighbouring values, the others halves."""
        cos, sin = cos[:, None, :], sin[:, None, :]
        if self.arch == "llama":
            a, b = x[..., 0::2], x[..., 1::2]
            return np.stack([a * cos - b * sin, a * sin + b * cos], axis=-1).reshape(x.shape)
        a, b = np.split(x, 2, axis=-1)
        return np.concatenate([a * cos - b * sin, a * sin + b * cos], axis=-1)

    # --- layers ---

    def norm(self, x, name):
        w = self.weight(name + ".weight")
        return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + self.eps) * w

    def linear(self, x, name):
        y = x @ self.weight(name + ".weight").T
        bias = self.weight(name + ".bias")
        return y if bias is None else y + bias

    def attention(self, x, layer):
        b, n, hd = f"blk.{layer}.", len(x), self.head_dim
        q = self.linear(x, b + "attn_q").reshape(n, self.heads, hd)
        k = self.linear(x, b + "attn_k").reshape(n, self.kv_heads, hd)
        v = self.linear(x, b + "attn_v").reshape(n, self.kv_heads, hd)
        if self.arch in ("qwen3", "gemma3"):
            q, k = self.norm(q, b + "attn_q_norm"), self.norm(k, b + "attn_k_norm")
        cos, sin = self.rotation(layer, n)
        q, k = self.rotate(q, cos, sin) * self.query_scale, self.rotate(k, cos, sin)
        k, v = self.keep(k), self.keep(v)
        group = self.heads // self.kv_heads
        q = q.reshape(n, self.kv_heads, group, hd).transpose(1, 2, 0, 3)
        k, v = k.transpose(1, 2, 0)[:, None], v.transpose(1, 0, 2)[:, None]
        out = np.concatenate([self._attend(q, k, v, layer, at, min(n, at + QUERY_ROWS))
                              for at in range(0, n, QUERY_ROWS)], axis=2)
        return self.linear(out.transpose(2, 0, 1, 3).reshape(n, -1), b + "attn_output")

    def _attend(self, q, k, v, layer, first, last):
        """Queries first to last - 1: q [kv_heads][group][n][d], k [..][1][d][n], v [..][1][n][d]."""
        score = q[:, :, first:last] @ k[..., :last]
        distance = np.arange(first, last)[:, None] - np.arange(last)[None, :]
        hidden = distance < 0
        if self.slides(layer):
            hidden |= distance >= self.window
        score += np.where(hidden, -np.inf, 0)
        score = np.exp(score - score.max(axis=-1, keepdims=True))
        return (score / score.sum(axis=-1, keepdims=True)) @ v[:, :, :last]

    def feed_forward(self, x, layer):
        b = f"blk.{layer}."
        gate, up = self.linear(x, b + "ffn_gate"), self.linear(x, b + "ffn_up")
        if self.arch == "gemma3":
            act = 0.5 * gate * (1 + np.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
        else:
            act = gate / (1 + np.exp(-gate))
        return self.linear(act * up, b + "ffn_down")

    def logits(self, ids):
        """ids [n] to logits [n][vocab], float64."""
        x = self.weight("token_embd.weight")[np.asarray(ids)]
        gemma = self.arch == "gemma3"
        if gemma:
            x = x * math.sqrt(self.dim)
        for layer in range(self.layers):
            b = f"blk.{layer}."
            y = self.attention(self.norm(x, b + "attn_norm"), layer)
            x = x + (self.norm(y, b + "post_attention_norm") if gemma else y)
            y = self.feed_forward(self.norm(x, b + "ffn_norm"), layer)
            x = x + (self.norm(y, b + "post_ffw_norm") if gemma else y)
        tied = self.weight("output.weight") is None
        y = self.linear(self.norm(x, "output_norm"), "token_embd" if tied else "output")
        return self.softcap * np.tanh(y / self.softcap) if self.softcap else y


def error(got, want):
    """RMS difference in units of the standard deviation of the wanted logits."""
    got, want = np.asarray(got, dtype=np.float64), np.asarray(want)
    if got.shape != want.shape:
        raise ValueError(f"{got.shape} logits where {want.shape} were expected")
    if not np.isfinite(got).all():
        return math.inf
    return float(np.sqrt(np.mean((got - want) ** 2)) / np.std(want))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    ids = np.array(sys.stdin.read().split(), dtype=np.int64)
    sys.stdout.buffer.write(Model(sys.argv[1]).logits(ids).astype("<f8").tobytes())


if __name__ == "__main__":
    main()
