#!/usr/bin/env python3
"""Trains the tokenizer and turns the text into token ids.

  tokens.py WORK [--text]

Reads WORK/docs.jsonl and WORK/pairs.jsonl. Writes WORK/tokenizer.json (byte-level BPE of
4096 tokens in Hugging Face's format, the split of text into words as qwen2 does it) and the
ids as uint16: WORK/train.bin and WORK/held.bin (documents and conversations that training
never sees, chosen by a hash of their names), with their numbers and bytes in WORK/sizes.json.
A tokenizer.json that is there already is kept. Before that, WORK/held.txt, the documents held
out as plain text, and WORK/fit.txt, 4.2 MB of the training documents (about a million tokens, for
pal fit); with --text nothing else.
Needs the PyPI packages tokenizers and numpy.
"""
import hashlib
import json
import pathlib
import random
import sys

import numpy as np
import tokenizers
from tokenizers import decoders, models, pre_tokenizers, trainers

import chatdata

VOCAB = 4096
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]  # the last ids
SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
         r"|\s*[\r\n]+|\s+(?!\S)|\s+")
HELD_OUT = 0.015  # of the documents and of the questions
LIMIT = {  # MB of training text at most from packages of much code or many identifiers
    "linux-doc-6.1": 2.5, "manpages-dev": 0.8, "python-sqlalchemy-doc": 0.8, "cmake-doc": 0.5,
    "perl-doc": 3.0, "sqlite3-doc": 3.0, "postgresql-doc-15": 3.0, "python3.11-doc": 4.0,
    "git-doc": 1.5, "apache2-doc": 1.5, "python-django-doc": 2.5, "rust-doc": 2.0,
}
FIT_BYTES = 4200000
ROUNDS = 2  # how often each pair is used, under different templates


def held(name):
    digest = hashlib.blake2b(name.encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") < HELD_OUT * 2**32


def train_bpe(texts):
    tok = tokenizers.Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(tokenizers.Regex(SPLIT), behavior="isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(texts, trainers.BpeTrainer(
        vocab_size=VOCAB - len(SPECIAL), show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tok.add_special_tokens(SPECIAL)
    assert tok.get_vocab_size() == VOCAB and tok.token_to_id(SPECIAL[-1]) == VOCAB - 1
    return tok


def limited(docs):
    """The documents of the packages named in LIMIT, up to their limits, and all others."""
    used = {}
    for package, text in docs:
        used[package] = used.get(package, 0) + len(text)
        if used[package] <= LIMIT.get(package, 1000) * 1e6:
            yield text


def conversations(pairs, rng, rounds):
    out = []
    for _ in range(rounds):
        rng.shuffle(pairs)
        i = 0
        while i < len(pairs):
            n = rng.choice([1, 1, 2, 3])
            out.append(chatdata.conversation(rng, pairs[i:i + n]))
            i += n
    return out


def write_text(work, parts):
    for name, texts, size in (("held", list(limited(parts["held"])), 1500000),
                              ("fit", random.Random(2).sample(list(limited(parts["train"])), 4000),
                               FIT_BYTES)):
        with open(work / f"{name}.txt", "w") as f:
            for text in texts:
                size -= len(text.encode()) + 2
                if size >= 0:
                    f.write(text.strip() + "\n\n")


def main():
    work = pathlib.Path(sys.argv[1])
    rng = random.Random(1)
    docs = [json.loads(line) for line in open(work / "docs.jsonl")]
    pairs = [json.loads(line) for line in open(work / "pairs.jsonl")]
    parts = {"train": [], "held": []}
    for d in docs:
        name = d["package"] + "/" + d["path"].split("/")[-1]
        parts["held" if held(name) else "train"].append((d["package"], d["text"]))
    write_text(work, parts)
    if "--text" in sys.argv:
        return
    asked = {"train": [], "held": []}
    for p in pairs:
        # A dictionary entry is held out together with its document.
        name = {"entry": "dict-foldoc/"}.get(p["kind"], "") + p["q"]
        asked["held" if held(name) else "train"].append((p["kind"], p["q"], p["a"]))
    chats = {k: conversations(asked[k], rng, ROUNDS if k == "train" else 1) for k in asked}

    if not (work / "tokenizer.json").exists():
        sample = [t for _, t in parts["train"]] + chats["train"][::4]
        plain = [t.replace("<|im_start|>", "").replace("<|im_end|>", "") for t in sample]
        train_bpe(plain).save(str(work / "tokenizer.json"))
    tok = tokenizers.Tokenizer.from_file(str(work / "tokenizer.json"))

    sizes = {}
    for k in parts:
        docs = list(limited(parts[k]))
        texts = [(t, 0) for t in docs] + [(t, 1) for t in chats[k]]
        rng.shuffle(texts)
        ids, kinds = [], []
        for e, (_, kind) in zip(tok.encode_batch([t for t, _ in texts]), texts):
            ids += [VOCAB - 3] + e.ids
            kinds += [kind] * (len(e.ids) + 1)
        np.array(ids, dtype=np.uint16).tofile(work / f"{k}.bin")
        n_bytes = sum(len(t.encode()) for t, _ in texts)
        sizes[k] = {"tokens": len(ids), "bytes": n_bytes, "chat_tokens": sum(kinds),
                    "documents": len(docs), "conversations": len(chats[k])}
    (work / "sizes.json").write_text(json.dumps(sizes, indent=1) + "\n")
    print(json.dumps(sizes))


main()
