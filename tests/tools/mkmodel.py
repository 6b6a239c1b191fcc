#!/usr/bin/python3
"""Writes GGUF models with random weights: every architecture, weight type and feature.

For correctness random weights are a stricter test than trained ones: every engine that loads
the file must compute the same logits, and nothing is small enough to be forgotten. Weights
have a deviation of one over the root of the row length, so that attention is far from uniform
and every layer counts. Needs numpy.

  mkmodel.py OUT [--shape tiny|0.6b|1.7b] [--arch qwen3|qwen2|llama|gemma3] [--type TYPE]
             [--rope none|linear|yarn|llama3] [--dim N] [--heads N] ... [--seed N] [--untied]
  mkmodel.py OUT --random SEED [--arch ARCH] [--type TYPE]   a random small shape and features
  mkmodel.py OUT --twin-of MODEL     the same model with every tensor as F32

TYPE: f32 f16 bf16 q4_0 q4_1 q5_0 q5_1 q8_0 q2_k q3_k q4_k q5_k q6_k iq4_nl iq4_xs, or one of
the mixes q4_k_m (as llama.cpp's, about) and mixed (each tensor its own random type). A matrix
whose rows are not whole blocks of the type gets a smaller type, as in real files.
"""
import argparse
from dataclasses import asdict, dataclass, fields
import math
import zlib

import numpy as np

import gguf
import quants

ARCHS = ("qwen3", "qwen2", "llama", "gemma3")
ROPES = {"qwen3": ("none", "linear", "yarn"), "qwen2": ("none", "linear", "yarn"),
         "llama": ("none", "linear", "yarn", "llama3"), "gemma3": ("none", "linear")}
SHAPES = {  # layers, dim, heads, kv_heads, head_dim, ff, vocab
    "tiny": (4, 256, 8, 4, 32, 768, 512),
    "0.6b": (28, 1024, 16, 8, 128, 3072, 151936),
    "1.7b": (28, 2048, 16, 8, 128, 6144, 151936),
}
DIMS = ("layers", "dim", "heads", "kv_heads", "head_dim", "ff", "vocab")
BASES = {"qwen3": 1e6, "qwen2": 1e6, "llama": 5e5, "gemma3": 1e6}


@dataclass
class Spec:
    """Everything that makes a model; the file is a function of it alone."""
    arch: str = "qwen3"
    layers: int = 4
    dim: int = 256
    heads: int = 8
    kv_heads: int = 4
    head_dim: int = 32
    ff: int = 768
    vocab: int = 512            # at least 259: 256 bytes and three special tokens
    ctx: int = 40960
    type: str = "f32"           # of the matrices: a type of quants.py, q4_k_m or mixed
    embd: str = ""              # of token_embd; empty: as type says
    output: str = ""            # of output; empty: as embd
    tied: bool = True           # no output.weight: the embedding is used
    rope: str = "none"
    rope_base: float = 0        # 0: usual for the architecture
    rope_factor: float = 4.0    # of linear and yarn
    rope_orig: int = 128        # trained length that yarn and llama3 extend
    attn_factor: float = 0      # yarn's extra factor; 0: not in the file
    window: int = 64            # gemma3: positions a sliding layer sees
    softcap: float = 0          # gemma3: of the last logits; 0: not in the file
    terse: bool = False         # leave out metadata that says what readers assume anyway
    version: int = 3
    seed: int = 0

    def base(self):
        return self.rope_base or BASES[self.arch]

    def text(self):
        """What differs from the defaults, for messages."""
        return " ".join(f"{f.name}={getattr(self, f.name)}" for f in fields(self)
                        if getattr(self, f.name) != f.default or f.name in ("arch", "type"))


def gpt2_bytes():
    """The 256 printable characters that stand for the byte values in a byte-level BPE."""
    keep = [*range(33, 127), *range(161, 173), *range(174, 256)]
    chars, spare = [""] * 256, 256
    for b in range(256):
        if b in keep:
            chars[b] = chr(b)
        else:
            chars[b], spare = chr(spare), spare + 1
    return chars


def llama3_factors(s):
    """The divisors of the rotation frequencies in rope_freqs.weight, by the rule of Llama 3.1
    (factor 8, low 1, high 4), for a trained length of s.rope_orig."""
    freq = s.base() ** (-np.arange(0, s.head_dim, 2) / s.head_dim)
    turns = s.rope_orig * freq / (2 * math.pi)
    smooth = (turns - 1) / (4 - 1)
    middle = 1 / ((1 - smooth) / 8 + smooth)
    return np.where(turns < 1, 8.0, np.where(turns > 4, 1.0, middle)).astype(np.float32)


def metadata(w, s):
    p = s.arch + "."
    w.set("general.architecture", "str", s.arch)
    w.set("general.name", "str", f"random {s.text()}")
    w.set(p + "context_length", "u32", s.ctx)
    w.set(p + "embedding_length", "u32", s.dim)
    w.set(p + "block_count", "u32", s.layers)
    w.set(p + "feed_forward_length", "u32", s.ff)
    w.set(p + "attention.head_count", "u32", s.heads)
    if not (s.terse and s.kv_heads == s.heads):
        w.set(p + "attention.head_count_kv", "u32", s.kv_heads)
    if not (s.terse and s.head_dim * s.heads == s.dim):
        w.set(p + "attention.key_length", "u32", s.head_dim)
        w.set(p + "attention.value_length", "u32", s.head_dim)
    w.set(p + "attention.layer_norm_rms_epsilon", "f32", 1e-6 if s.arch != "llama" else 1e-5)
    if not (s.terse and s.base() == 10000):
        w.set(p + "rope.freq_base", "f32", s.base())
    if s.arch == "llama" and not s.terse:
        w.set(p + "rope.dimension_count", "u32", s.head_dim)
    if s.rope in ("linear", "yarn"):
        w.set(p + "rope.scaling.type", "str", s.rope)
        w.set(p + "rope.scaling.factor", "f32", s.rope_factor)
    if s.rope == "yarn":
        w.set(p + "rope.scaling.original_context_length", "u32", s.rope_orig)
        if s.attn_factor:
            w.set(p + "rope.scaling.attn_factor", "f32", s.attn_factor)
    if s.arch == "gemma3":
        w.set(p + "attention.sliding_window", "u32", s.window)
        if s.softcap:
            w.set(p + "final_logit_softcapping", "f32", s.softcap)
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    words = gpt2_bytes() + [f"x{i}z" for i in range(s.vocab - 259)] + special
    w.set("tokenizer.ggml.model", "str", "gpt2")
    w.set("tokenizer.ggml.pre", "str", "qwen2")
    w.set("tokenizer.ggml.tokens", "str", words)
    w.set("tokenizer.ggml.token_type", "i32", [1] * (s.vocab - 3) + [3] * 3)
    w.set("tokenizer.ggml.merges", "str", ["x 1"])
    w.set("tokenizer.ggml.bos_token_id", "u32", s.vocab - 3)
    w.set("tokenizer.ggml.eos_token_id", "u32", s.vocab - 1)


def matrix_type(s, rng, name, columns, layer):
    """The type of a matrix (layer -1: embedding and output)."""
    top = (s.output if name == "output" else "") or s.embd
    if layer < 0 and top:
        want = top
    elif s.type == "mixed":
        # never only one kind of block: a float or a 32-block type now and then
        want = str(rng.choice(list(quants.TYPES)))
    elif s.type == "q4_k_m":
        more = layer < 0 or (layer % 2 == 0 and name in ("attn_v", "ffn_down"))
        want = "q6_k" if more else "q4_k"
    else:
        want = s.type
    return quants.fit(want, columns)


def tensors(s):
    """(name, shape, kind, type) of every tensor; kind: matrix, norm, bias, or rope."""
    rng = np.random.default_rng([s.seed, 77])
    out = []

    def matrix(name, rows, columns, layer=-1):
        kind = matrix_type(s, rng, name, columns, layer)
        full = f"blk.{layer}.{name}.weight" if layer >= 0 else name + ".weight"
        out.append((full, (rows, columns), "matrix", kind))

    def vector(name, n, kind="norm"):
        out.append((name, (n,), kind, "f32"))

    q, kv = s.heads * s.head_dim, s.kv_heads * s.head_dim
    matrix("token_embd", s.vocab, s.dim)
    vector("output_norm.weight", s.dim)
    if not s.tied:
        matrix("output", s.vocab, s.dim)
    if s.rope == "llama3":
        vector("rope_freqs.weight", s.head_dim // 2, "rope")
    for layer in range(s.layers):
        b = f"blk.{layer}."
        vector(b + "attn_norm.weight", s.dim)
        vector(b + "ffn_norm.weight", s.dim)
        if s.arch in ("qwen3", "gemma3"):
            vector(b + "attn_q_norm.weight", s.head_dim)
            vector(b + "attn_k_norm.weight", s.head_dim)
        if s.arch == "gemma3":
            vector(b + "post_attention_norm.weight", s.dim)
            vector(b + "post_ffw_norm.weight", s.dim)
        for name, rows in (("attn_q", q), ("attn_k", kv), ("attn_v", kv)):
            matrix(name, rows, s.dim, layer)
            if s.arch == "qwen2":
                vector(b + name + ".bias", rows, "bias")
        matrix("attn_output", s.dim, q, layer)
        matrix("ffn_gate", s.ff, s.dim, layer)
        matrix("ffn_up", s.ff, s.dim, layer)
        matrix("ffn_down", s.dim, s.ff, layer)
    return out


def contents(s, name, shape, kind, type_name):
    """The bytes of one tensor; a stream of its own, so that no tensor depends on another."""
    rng = np.random.default_rng([s.seed, zlib.crc32(name.encode())])
    count = int(np.prod(shape))
    if kind == "rope":
        return quants.encode("f32", llama3_factors(s))
    if kind == "norm":
        return quants.encode("f32", 1 + 0.1 * rng.standard_normal(count))
    if kind == "bias":
        return quants.encode("f32", 0.3 * rng.standard_normal(count))
    # one row at a time would be slow and all of a large matrix at once big: 4M weights
    rows = max(1, (1 << 22) // shape[1])
    parts = [quants.random_blocks(rng, type_name, min(rows, shape[0] - r) * shape[1],
                                  1 / math.sqrt(shape[1])) for r in range(0, shape[0], rows)]
    return b"".join(parts)


def write(path, s):
    if s.vocab < 259 or s.heads % s.kv_heads or s.rope not in ROPES[s.arch]:
        raise ValueError(f"not a model: {s.text()}")
    w = gguf.Writer(s.version)
    metadata(w, s)
    for name, shape, kind, type_name in tensors(s):
        w.add(name, shape, type_name,
              lambda a=(name, shape, kind, type_name): contents(s, *a))
    w.write(path)


def twin(source, path):
    """The model at source with every tensor as F32."""
    f = gguf.File(source)
    w = gguf.Writer(f.version)
    w.copy_meta(f)
    for t in f.tensors.values():
        w.add(t.name, t.shape, "f32", lambda t=t: quants.encode("f32", t.values()))
    w.write(path)


def random_spec(seed, arch="", type_name=""):
    """A small model of a random shape with random features: a function of the seed (and of
    arch and type_name, if given)."""
    rng = np.random.default_rng([seed, 5])
    pick = lambda *options: options[int(rng.integers(len(options)))]
    arch = arch or pick(*ARCHS)
    type_name = type_name or pick(*quants.TYPES, "q4_k_m", "mixed")
    head_dim = pick(16, 32, 32, 48, 64, 64, 80, 96, 128, 256)
    kv_heads = pick(1, 1, 2, 2, 3)
    heads = kv_heads * pick(1, 2, 4, 8)
    while heads * head_dim > 512 and heads > kv_heads:
        heads //= 2
    if type_name in quants.FLOATS:  # any width is possible; small ones are quick
        dim = pick(40, 64, 72, 96, 100, 128, 160, 256)
        ff = pick(56, 96, 120, 128, 200, 256, 344)
    elif quants.TYPES.get(type_name, quants.TYPES["q4_k"]).block == 32:
        dim = pick(32, 64, 96, 128, 160, 256, 288)
        ff = pick(64, 96, 160, 224, 256, 352)
    else:
        dim = pick(256, 256, 256, 512)
        ff = pick(256, 512, 768, 352)
    if rng.random() < 0.3 and dim % heads == 0 and dim // heads in (16, 32, 64, 128):
        head_dim = dim // heads
    if arch == "qwen2":  # llama.cpp takes no other width, and no such model is known
        head_dim = pick(16, 32, 64, 64, 128)
        block = quants.TYPES.get(type_name, quants.TYPES["q4_k"]).block
        while heads * head_dim % block:
            heads, kv_heads = heads * 2, kv_heads * 2
        dim = heads * head_dim
    rope = pick("none", *ROPES[arch])
    return Spec(arch=arch, layers=pick(1, 2, 3) if arch != "gemma3" else pick(2, 6, 7),
                dim=dim, heads=heads, kv_heads=kv_heads, head_dim=head_dim, ff=ff,
                vocab=pick(259, 263, 272, 301, 320, 333), type=type_name, tied=rng.random() < 0.5,
                embd=pick("", "", str(rng.choice(list(quants.TYPES)))), rope=rope,
                rope_base=pick(0, 10000, 10000, 5e5, 1e6), rope_factor=pick(2.0, 4.0, 8.0, 3.5),
                rope_orig=pick(32, 64, 256), attn_factor=pick(0, 0, 1.25),
                window=pick(1, 2, 7, 16, 24, 33, 64), terse=rng.random() < 0.3,
                version=pick(2, 3, 3), seed=seed)


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("out")
    ap.add_argument("--shape", choices=SHAPES, default="tiny")
    ap.add_argument("--twin-of", metavar="MODEL")
    ap.add_argument("--random", type=int, metavar="SEED")
    ap.add_argument("--untied", action="store_true", help="a separate output matrix")
    for f in fields(Spec):
        if f.name == "tied":
            continue
        flag = "--" + f.name.replace("_", "-")
        if f.type is bool:
            ap.add_argument(flag, action="store_true", default=None)
        else:
            ap.add_argument(flag, type=f.type)
    a = ap.parse_args()
    if a.twin_of:
        twin(a.twin_of, a.out)
        return
    given = {f.name: getattr(a, f.name) for f in fields(Spec)
             if f.name != "tied" and getattr(a, f.name) is not None}
    if a.random is not None:
        s = random_spec(a.random, a.arch or "", a.type or "")
        given.pop("arch", None), given.pop("type", None)
    else:
        s = Spec(**dict(zip(DIMS, SHAPES[a.shape])))
    s = Spec(**{**asdict(s), **given, "tied": s.tied and not a.untied})
    write(a.out, s)
    print(s.text())


if __name__ == "__main__":
    main()
