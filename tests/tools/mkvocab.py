#!/usr/bin/env python3
"""Makes a GGUF file that holds a vocabulary and nothing else of a Hugging Face tokenizer.json.

    mkvocab.py qwen3|llama3|gemma3 TOKENIZER.JSON OUT.GGUF [--weights]

With --weights it is a tiny "llama" model of zeros as well, for programs that read no
vocabulary without one.

What goes into the file is what the usual converters write for these models: byte-level BPE
keeps its merges; Gemma becomes the SentencePiece model it was, with scores in place of
merges, runs of spaces as user-defined tokens written with plain spaces, and scores of -1000
for user-defined tokens.
"""
import json
import sys

import numpy as np

import gguf

NORMAL, UNKNOWN, CONTROL, USER, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
SPACE_MARK = "\u2581"

FAMILIES = {
    "qwen3": dict(model="gpt2", pre="qwen2", bos=None, eos="<|im_end|>", eot=None, unk=None,
                  add_bos=False),
    "llama3": dict(model="gpt2", pre="llama-bpe", bos="<|begin_of_text|>",
                   eos="<|end_of_text|>", eot="<|eot_id|>", unk=None, add_bos=True),
    "gemma3": dict(model="llama", pre="default", bos="<bos>", eos="<eos>", eot="<end_of_turn>",
                   unk="<unk>", add_bos=True),
}


def is_byte(text):
    return len(text) == 6 and text.startswith("<0x") and text.endswith(">")


def tokens_of(data):
    """[(text, type)] by id."""
    ids = {i: (text, NORMAL) for text, i in data["model"]["vocab"].items()}
    for added in data["added_tokens"]:
        kind = CONTROL if added["special"] else USER
        ids[added["id"]] = (added["content"], kind)
    return [ids.get(i, (f"[PAD{i}]", UNUSED)) for i in range(max(ids) + 1)]


def sentencepiece(tokens, unk):
    """Texts, types and scores as SentencePiece's own model file would have them."""
    texts, types, scores = [], [], []
    for i, (text, kind) in enumerate(tokens):
        if kind == NORMAL and is_byte(text):
            kind = BYTE
        if text == unk:
            kind = UNKNOWN
        if kind == USER:
            text = text.replace(SPACE_MARK, " ")
        texts.append(text)
        types.append(kind)
        scores.append(-1000.0 if kind == USER else float(-i) if kind == NORMAL else 0.0)
    return texts, types, scores


def add_weights(w, n_vocab, width=32):
    for key, kind, value in (
            ("block_count", "u32", 1), ("context_length", "u32", 64), ("vocab_size", "u32", n_vocab),
            ("embedding_length", "u32", width), ("feed_forward_length", "u32", width),
            ("attention.head_count", "u32", 1), ("attention.layer_norm_rms_epsilon", "f32", 1e-5)):
        w.set("llama." + key, kind, value)
    zeros = lambda *shape: b"\0" * (int(np.prod(shape)) * (4 if len(shape) == 1 else 2))
    names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    shapes = {"token_embd": (n_vocab, width), "output_norm": (width,), "blk.0.attn_norm": (width,),
              "blk.0.ffn_norm": (width,), **{f"blk.0.{n}": (width, width) for n in names}}
    for name, shape in shapes.items():
        w.add(name + ".weight", shape, "f32" if len(shape) == 1 else "f16", zeros(*shape))


def write(family, source, out, weights=False):
    facts = FAMILIES[family]
    with open(source, encoding="utf-8") as f:
        data = json.load(f)
    tokens = tokens_of(data)
    by_text = {text: i for i, (text, _) in enumerate(tokens)}
    w = gguf.Writer()
    w.set("general.architecture", "str", "llama" if weights else family)
    w.set("general.name", "str", f"the vocabulary of {family}")
    w.set("tokenizer.ggml.model", "str", facts["model"])
    w.set("tokenizer.ggml.pre", "str", facts["pre"])
    if facts["model"] == "llama":
        texts, types, scores = sentencepiece(tokens, facts["unk"])
        w.set("tokenizer.ggml.scores", "f32", scores)
        w.set("tokenizer.ggml.add_space_prefix", "bool", False)
    else:
        texts, types = [text for text, _ in tokens], [kind for _, kind in tokens]
        merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]
        w.set("tokenizer.ggml.merges", "str", merges)
    w.set("tokenizer.ggml.tokens", "str", texts)
    w.set("tokenizer.ggml.token_type", "i32", types)
    for key, name in (("bos", "bos"), ("eos", "eos"), ("eot", "eot"), ("unknown", "unk")):
        if facts[name] is not None:
            w.set(f"tokenizer.ggml.{key}_token_id", "u32", by_text[facts[name]])
    w.set("tokenizer.ggml.add_bos_token", "bool", facts["add_bos"])
    if weights:
        add_weights(w, len(texts))
    w.write(out)


if __name__ == "__main__":
    arguments = [a for a in sys.argv[1:] if a != "--weights"]
    if len(arguments) != 3 or arguments[0] not in FAMILIES:
        sys.exit(__doc__)
    write(*arguments, weights="--weights" in sys.argv)
