#!/usr/bin/env python3
"""Writes WORK/model.pt and WORK/tokenizer.json as a GGUF file (version 3).

  export.py WORK OUT.gguf [--weights NAME] [--type q8_0|f16|f32]

--weights: of WORK/NAME.pt instead of WORK/model.pt.
Keys and tensor names are those of qwen3 models elsewhere, so that any runtime that reads such
files reads this one. Matrices in the type given, norms in F32. --logits FILE: ids on standard
input, their logits as raw float32 to FILE, computed from the weights as they were stored.
"""
import argparse
import json
import pathlib
import struct
import sys

import numpy as np
import torch

from model import Config, Model

TYPES = {"f32": 0, "f16": 1, "q8_0": 8}
ALIGN = 32
TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message['role'] + '\\n' "
    "+ message['content'] + '<|im_end|>' + '\\n' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}")


def quantise_q8_0(x):
    """Blocks of 32: an f16 scale d = max |x| / 127 and 32 signed bytes round(x / d)."""
    x = np.ascontiguousarray(x, dtype=np.float32).reshape(-1, 32)
    d = np.abs(x).max(1) / np.float32(127)
    inverse = np.divide(1, d, out=np.zeros_like(d), where=d > 0)
    out = np.empty(len(x), dtype=[("d", "<f2"), ("q", "i1", 32)])
    out["d"], out["q"] = d, np.rint(x * inverse[:, None])
    return out


def stored(x, kind):
    """The bytes of a tensor, and the values that a reader gets from them."""
    if kind == "q8_0":
        blocks = quantise_q8_0(x)
        values = blocks["d"].astype(np.float32)[:, None] * blocks["q"].astype(np.float32)
        return blocks.tobytes(), values.reshape(x.shape)
    data = x.astype({"f32": "<f4", "f16": "<f2"}[kind])
    return data.tobytes(), data.astype(np.float32)


def string(s):
    return struct.pack("<Q", len(s.encode())) + s.encode()


class Metadata:
    def __init__(self):
        self.items = []

    def u32(self, key, value):
        self.items.append(string(key) + struct.pack("<II", 4, value))

    def f32(self, key, value):
        self.items.append(string(key) + struct.pack("<If", 6, value))

    def boolean(self, key, value):
        self.items.append(string(key) + struct.pack("<I?", 7, value))

    def text(self, key, value):
        self.items.append(string(key) + struct.pack("<I", 8) + string(value))

    def texts(self, key, values):
        self.items.append(string(key) + struct.pack("<IIQ", 9, 8, len(values))
                          + b"".join(map(string, values)))

    def ints(self, key, values):
        self.items.append(string(key) + struct.pack("<IIQ", 9, 5, len(values))
                          + struct.pack(f"<{len(values)}i", *values))


def describe(c, kind, parameters):
    m = Metadata()
    m.text("general.architecture", "qwen3")
    m.text("general.type", "model")
    m.text("general.name", f"palimpsest {round(parameters / 1e6)}M")
    m.text("general.description", "A small demonstration model, trained on free software "
           "documentation and on recalling what its context says. It writes sentences, not facts.")
    m.text("general.license", "mit")
    m.texts("general.languages", ["en"])
    m.u32("general.file_type", {"f32": 0, "f16": 1, "q8_0": 7}[kind])
    m.u32("general.quantization_version", 2)
    m.u32("general.alignment", ALIGN)
    m.u32("qwen3.context_length", c.ctx)
    m.u32("qwen3.embedding_length", c.dim)
    m.u32("qwen3.block_count", c.layers)
    m.u32("qwen3.feed_forward_length", c.ff)
    m.u32("qwen3.attention.head_count", c.heads)
    m.u32("qwen3.attention.head_count_kv", c.kv_heads)
    m.u32("qwen3.attention.key_length", c.head_dim)
    m.u32("qwen3.attention.value_length", c.head_dim)
    m.f32("qwen3.attention.layer_norm_rms_epsilon", c.eps)
    m.f32("qwen3.rope.freq_base", c.rope_base)
    return m


def describe_tokenizer(m, tok, vocab):
    ids = dict(tok["model"]["vocab"])
    special = {t["content"]: t["id"] for t in tok["added_tokens"]}
    ids.update(special)
    tokens = sorted(ids, key=ids.get)
    assert [ids[t] for t in tokens] == list(range(vocab))
    merges = [x if isinstance(x, str) else " ".join(x) for x in tok["model"]["merges"]]
    m.text("tokenizer.ggml.model", "gpt2")
    m.text("tokenizer.ggml.pre", "qwen2")
    m.texts("tokenizer.ggml.tokens", tokens)
    m.ints("tokenizer.ggml.token_type", [3 if t in special else 1 for t in tokens])
    m.texts("tokenizer.ggml.merges", merges)
    m.u32("tokenizer.ggml.bos_token_id", special["<|endoftext|>"])
    m.u32("tokenizer.ggml.eos_token_id", special["<|im_end|>"])
    m.u32("tokenizer.ggml.eot_token_id", special["<|im_end|>"])
    m.u32("tokenizer.ggml.padding_token_id", special["<|endoftext|>"])
    m.boolean("tokenizer.ggml.add_bos_token", False)
    m.text("tokenizer.chat_template", TEMPLATE)


def write(path, meta, tensors):
    """tensors: (name, shape, type number, bytes), the shape with rows first."""
    head = [b"GGUF", struct.pack("<IQQ", 3, len(tensors), len(meta.items)), *meta.items]
    offset = 0
    for name, shape, number, data in tensors:
        head.append(string(name) + struct.pack("<I", len(shape))
                    + b"".join(struct.pack("<Q", n) for n in reversed(shape))
                    + struct.pack("<IQ", number, offset))
        offset += -(-len(data) // ALIGN) * ALIGN
    head = b"".join(head)
    with open(path, "wb") as f:
        f.write(head + b"\0" * (-len(head) % ALIGN))
        for _, _, _, data in tensors:
            f.write(data + b"\0" * (-len(data) % ALIGN))


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("work", type=pathlib.Path)
    ap.add_argument("out", type=pathlib.Path)
    ap.add_argument("--type", choices=TYPES, default="q8_0")
    ap.add_argument("--weights", default="model", metavar="NAME")
    ap.add_argument("--logits", type=pathlib.Path)
    a = ap.parse_args()
    c = Config()
    state = torch.load(a.work / f"{a.weights}.pt", map_location="cpu")
    meta = describe(c, a.type, sum(t.numel() for t in state.values()))
    describe_tokenizer(meta, json.loads((a.work / "tokenizer.json").read_text()), c.vocab)
    tensors, read_back = [], {}
    for key, t in state.items():
        x = t.float().numpy()
        kind = a.type if x.ndim == 2 else "f32"
        data, values = stored(x, kind)
        name = key if key.endswith(".weight") else key + ".weight"
        tensors.append((name, x.shape, TYPES[kind], data))
        read_back[key] = torch.from_numpy(values)
    write(a.out, meta, tensors)
    print(f"{a.out}: {a.out.stat().st_size / 1e6:.2f} MB, {len(tensors)} tensors")
    if a.logits:
        model = Model(c)
        model.load_state_dict(read_back)
        ids = torch.tensor([[int(x) for x in sys.stdin.read().split()]])
        with torch.no_grad():
            model.logits(model(ids))[0].numpy().astype("<f4").tofile(a.logits)


if __name__ == "__main__":
    main()
