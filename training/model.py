"""The qwen3 architecture in PyTorch (1.13 to 2.x), named and shaped as its GGUF tensors are.

RMSNorm before each block, per-head RMSNorm of queries and keys, rotary positions in the
"NEOX" layout (halves, not pairs), grouped-query attention, SwiGLU, tied embeddings.
"""
import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn


@dataclasses.dataclass
class Config:
    vocab: int = 4096
    dim: int = 256
    layers: int = 4
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 64
    ff: int = 1024
    ctx: int = 2048
    rope_base: float = 10000.0
    eps: float = 1e-6


def rms(x, weight, eps):
    if hasattr(F, "rms_norm"):
        return F.rms_norm(x, (x.shape[-1],), weight.to(x.dtype), eps)
    scale = torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True) + eps)
    return x * scale.to(x.dtype) * weight.to(x.dtype)


def rotate(x, cos, sin):
    """x: [B][heads][T][head_dim]; cos, sin: [T][head_dim / 2]."""
    a, b = x.chunk(2, -1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin), -1)


def attend(q, k, v):
    """Causal attention; q: [B][heads][T][head_dim], k and v: as many heads."""
    if hasattr(F, "scaled_dot_product_attention"):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    mask = torch.full((q.shape[2], q.shape[2]), -1e9, device=q.device).triu(1)
    s = (q @ k.transpose(-1, -2)).float() / math.sqrt(q.shape[-1]) + mask
    return torch.softmax(s, -1).to(v.dtype) @ v


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        d, hd = c.dim, c.head_dim
        self.attn_norm, self.ffn_norm = nn.Parameter(torch.ones(d)), nn.Parameter(torch.ones(d))
        self.attn_q_norm = nn.Parameter(torch.ones(hd))
        self.attn_k_norm = nn.Parameter(torch.ones(hd))
        self.attn_q = nn.Linear(d, c.heads * hd, bias=False)
        self.attn_k = nn.Linear(d, c.kv_heads * hd, bias=False)
        self.attn_v = nn.Linear(d, c.kv_heads * hd, bias=False)
        self.attn_output = nn.Linear(c.heads * hd, d, bias=False)
        self.ffn_gate = nn.Linear(d, c.ff, bias=False)
        self.ffn_up = nn.Linear(d, c.ff, bias=False)
        self.ffn_down = nn.Linear(c.ff, d, bias=False)
        for w in (self.attn_q, self.attn_k, self.attn_v, self.ffn_gate, self.ffn_up):
            nn.init.normal_(w.weight, std=d**-0.5)
        for w in (self.attn_output, self.ffn_down):
            nn.init.normal_(w.weight, std=w.weight.shape[1]**-0.5 / math.sqrt(2 * c.layers))

    def forward(self, x, cos, sin):
        c, (B, T, _) = self.c, x.shape
        h = rms(x, self.attn_norm, c.eps)
        q = rms(self.attn_q(h).view(B, T, c.heads, c.head_dim), self.attn_q_norm, c.eps)
        k = rms(self.attn_k(h).view(B, T, c.kv_heads, c.head_dim), self.attn_k_norm, c.eps)
        v = self.attn_v(h).view(B, T, c.kv_heads, c.head_dim).transpose(1, 2)
        q, k = rotate(q.transpose(1, 2), cos, sin), rotate(k.transpose(1, 2), cos, sin)
        group = c.heads // c.kv_heads
        o = attend(q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1))
        x = x + self.attn_output(o.transpose(1, 2).reshape(B, T, -1))
        h = rms(x, self.ffn_norm, c.eps)
        return x + self.ffn_down(F.silu(self.ffn_gate(h)) * self.ffn_up(h))


class Model(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c = c
        self.token_embd = nn.Embedding(c.vocab, c.dim)
        nn.init.normal_(self.token_embd.weight, std=0.02)
        self.blk = nn.ModuleList(Block(c) for _ in range(c.layers))
        self.output_norm = nn.Parameter(torch.ones(c.dim))

    def forward(self, ids, tap=False):
        """ids: [B][T]; returns the hidden states under the output matrix, [B][T][dim], with tap
        also the inputs of the blocks."""
        c = self.c
        inv = c.rope_base ** (-torch.arange(0, c.head_dim, 2, device=ids.device) / c.head_dim)
        angle = torch.arange(ids.shape[1], device=ids.device)[:, None] * inv
        x = self.token_embd(ids)
        if torch.is_autocast_cpu_enabled() or torch.is_autocast_enabled():
            x = x.bfloat16()
        cos, sin = angle.cos().to(x.dtype), angle.sin().to(x.dtype)
        inputs = []
        for block in self.blk:
            inputs.append(x)
            x = block(x, cos, sin)
        h = rms(x, self.output_norm, c.eps)
        return (h, inputs) if tap else h

    def logits(self, hidden):
        return F.linear(hidden, self.token_embd.weight)
