#!/usr/bin/env python3
"""Writes corpus/gguf/: small GGUF files, good-*.gguf that open and bad-*.gguf that do not;
corpus/sidecar/: side-cars of the model in tests/fuzz/sidecar.c, good-*.gguf and bad-*.gguf;
corpus/tiles/: changes to a file of tiles, as tests/fuzz/tiles.c reads them; corpus/recall/:
evidence and tasks, as tests/fuzz/recall.c reads them; corpus/map/: evidence and transcripts, as
tests/fuzz/map.c reads them; and corpus/session/: sessions' files, as tests/fuzz/session.c reads them.

    make_corpus.py [FOLDER]
"""
import copy
import json
import os
import struct
import sys

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
PACK = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<B",
        U64: "<Q", I64: "<q", F64: "<d"}
# Supported tensor types: number, elements and bytes of a block.
TYPES = {"f32": (0, 1, 4), "f16": (1, 1, 2), "q4_0": (2, 32, 18), "q4_1": (3, 32, 20),
         "q5_0": (6, 32, 22), "q5_1": (7, 32, 24), "q8_0": (8, 32, 34), "q2_k": (10, 256, 84),
         "q3_k": (11, 256, 110), "q4_k": (12, 256, 144), "q5_k": (13, 256, 176),
         "q6_k": (14, 256, 210), "iq4_nl": (20, 32, 18), "iq4_xs": (23, 256, 136),
         "bf16": (30, 1, 2)}
BIG = 2**64 - 1


def u32(n):
    return struct.pack("<I", n)


def u64(n):
    return struct.pack("<Q", n)


def text(s):
    b = s if isinstance(s, bytes) else s.encode()
    return u64(len(b)) + b


def value(kind, v):
    return text(v) if kind == STRING else struct.pack(PACK[kind], v)


def key(name, kind, v):
    return text(name) + u32(kind) + value(kind, v)


def array(name, kind, values, count=None):
    n = len(values) if count is None else count
    return text(name) + u32(ARRAY) + u32(kind) + u64(n) + b"".join(value(kind, v) for v in values)


def tensor(name, shape, kind, offset):
    number = TYPES[kind][0] if kind in TYPES else kind
    return (text(name) + u32(len(shape)) + b"".join(u64(n) for n in shape) + u32(number)
            + u64(offset))


def gguf(keys=(), tensors=(), data=b"", version=3, align=32, n_tensors=None, n_keys=None,
         magic=b"GGUF"):
    head = (magic + u32(version) + u64(len(tensors) if n_tensors is None else n_tensors)
            + u64(len(keys) if n_keys is None else n_keys) + b"".join(keys) + b"".join(tensors))
    return head + b"\0" * (-len(head) % align) + data


def vocabulary(model):
    if model == "gpt2":
        byte = list(range(33, 127)) + list(range(161, 173)) + list(range(174, 256))
        rest = [b for b in range(256) if b not in byte]
        tokens = [chr(b) for b in byte] + [chr(256 + i) for i in range(len(rest))]
        tokens += ["th", "the", "\u0120the", "<|im_start|>", "<|im_end|>"]
        kinds = [1] * (len(tokens) - 2) + [3, 3]
        return [key("tokenizer.ggml.model", STRING, "gpt2"),
                key("tokenizer.ggml.pre", STRING, "qwen2"),
                array("tokenizer.ggml.tokens", STRING, tokens),
                array("tokenizer.ggml.token_type", I32, kinds),
                array("tokenizer.ggml.merges", STRING, ["t h", "th e", "\u0120 the"]),
                key("tokenizer.ggml.eos_token_id", U32, len(tokens) - 1),
                key("tokenizer.chat_template", STRING, "{% for m in messages %}<|im_start|>")]
    tokens = ["<unk>", "<s>", "</s>"] + [f"<0x{b:02X}>" for b in range(256)]
    tokens += ["\u2581", "a", "b", "ab", "\u2581ab"]
    kinds = [2, 3, 3] + [6] * 256 + [1] * 5
    return [key("tokenizer.ggml.model", STRING, "llama"),
            array("tokenizer.ggml.tokens", STRING, tokens),
            array("tokenizer.ggml.scores", F32, [-float(i) for i in range(len(tokens))]),
            array("tokenizer.ggml.token_type", I32, kinds),
            key("tokenizer.ggml.bos_token_id", U32, 1),
            key("tokenizer.ggml.eos_token_id", U32, 2),
            key("tokenizer.ggml.add_bos_token", BOOL, 1)]


def all_kinds():
    samples = {U8: 255, I8: -1, U16: 65535, I16: -2, U32: 2**32 - 1, I32: -3, F32: 0.5, BOOL: 1,
               STRING: "text", U64: BIG, I64: -2**63, F64: float("nan")}
    return ([key(f"v.{k}", k, v) for k, v in samples.items()]
            + [array(f"a.{k}", k, [v, v]) for k, v in samples.items()]
            + [array("empty", STRING, []), key("general.architecture", STRING, "qwen3")])


def all_types():
    tensors, data = [], b""
    for name, (_, block, size) in TYPES.items():
        tensors.append(tensor(name + ".weight", [block, 2], name, len(data)))
        data += bytes(range(size)) * 2
        data += b"\0" * (-len(data) % 32)
    return gguf(tensors=tensors, data=data)


def good():
    one = [tensor("a", [2, 2], "f32", 0)]
    return {
        "empty": gguf(),
        "kinds": gguf(all_kinds()),
        "kinds-v2": gguf(all_kinds(), version=2),
        "types": all_types(),
        "align-8": gguf([key("general.alignment", U32, 8)], one, b"\1" * 16, align=8),
        "align-4096": gguf([key("general.alignment", U32, 4096)],
                           [tensor("a", [2], "f32", 4096), tensor("b", [2], "f16", 0)],
                           b"\0" * 4104, align=4096),
        "dims-4": gguf(tensors=[tensor("a", [1, 2, 3, 4], "f16", 0)], data=b"\0" * 48),
        "names": gguf([key("\x1b[2J\xff", STRING, b"\xff\xfe\0\n")],
                      [tensor("\x1b]0;x\x07" + "n" * 200, [2], "f32", 0)], b"\0" * 8),
        "gpt2": gguf(vocabulary("gpt2")),
        "llama": gguf(vocabulary("llama")),
    }


def bad_values():
    return {
        "key-empty": gguf([key("", U8, 1)]),
        "key-long": gguf([key("k" * 1025, U8, 1)]),
        "key-length": gguf([u64(BIG) + b"x" * 40]),
        "key-twice": gguf([key("k", U8, 1), key("j", U8, 1), key("k", U32, 1)]),
        "kind": gguf([text("k") + u32(13) + b"\0" * 8]),
        "bool": gguf([key("k", BOOL, 2)]),
        "bools": gguf([array("k", BOOL, [0, 1, 255])]),
        "string-length": gguf([text("k") + u32(STRING) + u64(BIG - 3) + b"x" * 40]),
        "strings-length": gguf([array("k", STRING, ["a"], 3) + u64(2**63)]),
        "array-nested": gguf([text("k") + u32(ARRAY) + u32(ARRAY) + u64(1) + u32(U8) + u64(0)]),
        "array-count": gguf([array("k", U8, [1] * 40, BIG)]),
        "array-count-wraps": gguf([array("k", F64, [1] * 4, 2**61 + 1)]),
        "array-short": gguf([array("k", F64, [1] * 4, 50)]),
        "array-kind": gguf([text("k") + u32(ARRAY) + u32(77) + u64(1) + b"\0" * 8]),
        "align-0": gguf([key("general.alignment", U32, 0)]),
        "align-24": gguf([key("general.alignment", U32, 24)]),
        "align-2g": gguf([key("general.alignment", U32, 2**31)]),
        "align-text": gguf([key("general.alignment", STRING, "32")]),
    }


def bad_tensors():
    def one(shape, kind="f32", offset=0, data=64):
        return gguf(tensors=[tensor("a.weight", shape, kind, offset)], data=b"\0" * data)

    def two(b, offset, name="b"):
        return gguf(tensors=[tensor("a", [9], "f32", 64), tensor(name, [b], "f32", offset)],
                    data=b"\0" * 256)
    return {
        "dims-0": one([]),
        "dims-5": one([1] * 5),
        "dims-many": gguf(tensors=[text("a") + u32(2**32 - 1) + b"\0" * 64]),
        "dim-zero": one([4, 0]),
        "dim-huge": one([BIG]),
        "product": one([2**32, 2**32]),
        "product-zero": one([2**32, 2**31, 2]),
        "bytes-wrap": one([2**62]),
        "block": one([33], "q4_0"),
        "type": one([4], 99),
        "type-removed": one([4], 4),
        "offset-odd": one([4], offset=4),
        "offset-far": one([4], offset=96),
        "offset-wraps": one([8], offset=BIG - 31),
        "data-missing": one([17]),
        "tensor-twice": two(4, 128, "a"),
        "overlap-same": two(9, 64),
        "overlap-tail": two(4, 96),
        "overlap-head": two(17, 0),
        "name-nul": gguf(tensors=[tensor("a\0b", [4], "f32", 0)], data=b"\0" * 16),
        "name-empty": gguf(tensors=[tensor("", [4], "f32", 0)], data=b"\0" * 16),
    }


def bad_headers():
    return {
        "nothing": b"",
        "magic": gguf(magic=b"GGML"),
        "version-1": gguf(version=1),
        "version-4": gguf(version=4),
        "big-endian": b"GGUF" + struct.pack(">IQQ", 3, 0, 0),
        "keys-many": gguf(n_keys=BIG, data=b"\0" * 64),
        "keys-2-60": gguf(n_keys=2**60, data=b"\0" * 64),
        "keys-65536": gguf(n_keys=65536, data=b"\0" * 64),
        "tensors-many": gguf(n_tensors=BIG, data=b"\0" * 64),
        "tensors-65536": gguf(n_tensors=65536, data=b"\0" * 64),
        "cut-in-key": gguf(all_kinds())[:500],
        "cut-in-header": gguf()[:17],
    }


def tiles():
    def changes(*pairs, sealed=False):
        return bytes([1 + sealed]) + b"".join(struct.pack("<IB", at, v) for at, v in pairs)
    block = 65536  # as in docs/formats/tiles.md
    fields = {"magic": 0, "format": 8, "layout": 12, "file-bytes": 16, "model-bytes": 24,
              "mtime": 32, "ctime": 40, "model-head": 48, "model-hash": 56, "records": 64,
              "tiles-at": 72, "tiles-bytes": 80, "trailer-hash": 88, "record-name": 96,
              "record-type": 104, "record-zero": 108, "record-rows": 112, "record-offset": 168,
              "head-zero": 176, "head-sum": block - 1, "tile": block, "tile-last": block + 39999,
              "trailer-zero": block + 40000, "sum": 2 * block, "last": 3 * block - 1}
    lengths = {"nothing": 0, "head": 95, "head-only": block, "cut": 3 * block - 1,
               "long": 3 * block + 1}
    out = {"good": changes(), "good-sealed": changes(sealed=True), "text": b"\0nonsense",
           "empty": b"\0", "magic-only": b"\0PALTILES" + b"\xff" * 200}
    for name, at in fields.items():
        out[name] = changes((at, 0xa5))
        out[name + "-sealed"] = changes((at, 0xa5), (at + 7 if at < 96 else at, 0xff), sealed=True)
    for name, n in lengths.items():
        out["length-" + name] = changes((6 * block * 7 + n, 0))
    return out


def corpora():
    """Changes to a good corpus, see corpus.c: 603 positions, 128 bytes of header."""
    def changes(*pairs, sealed=False):
        return bytes([1 + sealed]) + b"".join(struct.pack("<IB", at, v) for at, v in pairs)
    index, keys, end = 128 + 4 * 603, 128 + 8 * 603, 128 + 8 * 603 + 160
    fields = {"magic": 0, "version": 8, "header-bytes": 12, "file-bytes": 16, "n": 24,
              "documents": 32, "n-vocab": 40, "vocab-hash": 48, "sum": 56, "zero": 64,
              "header-sum": 120, "token": 128, "token-last": index - 4, "index": index,
              "index-last": keys - 4, "key": keys, "key-last": end - 4}
    out = {"good": changes(), "good-sealed": changes(sealed=True), "text": b"\0nonsense",
           "empty": b"\0", "magic-only": b"\0PALCORPS" + b"\xff" * 200}
    for name, at in fields.items():
        out[name] = changes((at, 0xa5))
        out[name + "-sealed"] = changes((at, 0xa5), (at + 3, 0xff), sealed=True)
    for name, n in {"nothing": 0, "header": 127, "header-only": 128, "cut": end - 1,
                    "long": end + 1}.items():
        out["length-" + name] = changes((16384 * 9 + n, 0))
    # Positions and tokens that are none, everywhere.
    for name, value, start, stop in (("tokens", 0xff, 128, index), ("index", 0, index, keys),
                                     ("index", 0xff, index, keys), ("keys", 0x7f, keys, end)):
        out[f"all-{name}-{value}"] = changes(*((at, value) for at in range(start, stop)),
                                             sealed=True)
    return out


def sidecar(first=(1026, 2), later=(0,), m=1, layers=2, kind="f16", odd=False, drop="", keys=(),
            shape=(8, 16), value=None, bias="f32", proposer=None):
    """Layers from m on of a model of 3 layers, n_embd 8, two kv heads of 4 and 4 heads; or all
    `layers` of them from the states of a proposer of (layers, n_embd), in the target (2, 12). The
    fuzz target makes hashes and checksum fit where the number of bytes is even."""
    own = {"palimpsest.sum": key("palimpsest.sum", U64, 0),
           "general.architecture": key("general.architecture", STRING, "palimpsest-side"),
           "palimpsest.version": key("palimpsest.version", U32, 1),
           "palimpsest.model_hash": key("palimpsest.model_hash", U64, 0),
           "palimpsest.project.layer": key("palimpsest.project.layer", U32, m),
           "palimpsest.select.first": array("palimpsest.select.first", U32, first),
           "palimpsest.select.later": array("palimpsest.select.later", U32, later)}
    if proposer:
        own.update({"palimpsest.proposer.hash": key("palimpsest.proposer.hash", U64, 0),
                    "palimpsest.proposer.layers": key("palimpsest.proposer.layers", U32,
                                                      proposer[0]),
                    "palimpsest.proposer.embd": key("palimpsest.proposer.embd", U32, proposer[1])})
        shape = (proposer[1], 16)
    own.update({text[0]: text[1] for text in keys})
    own.pop(drop, None)
    tensors, data = [], b""
    first_layer = 0 if proposer else m
    for layer in range(first_layer, first_layer + layers):
        for name, dims, t in (("weight", shape, kind), ("bias", (16, 1), bias)):
            tensors.append(tensor(f"project.{layer}.{name}", dims, t, len(data)))
            size = TYPES[t][2] * dims[0] * dims[1] // TYPES[t][1]
            raw = bytearray((i * 7 % 60 for i in range(size)))
            if value and value[0] == name:
                raw[:len(value[1])] = value[1]
            data += bytes(raw) + b"\0" * (-size % 32)
    whole = gguf(list(own.values()), tensors, data)
    return whole + b"\0" * ((len(whole) % 2) ^ odd)


def sidecars():
    nan = struct.pack("<f", float("nan"))
    return {
        "good-both": sidecar(),
        "good-f32": sidecar(kind="f32", m=2, layers=1),
        "good-no-layers": sidecar(m=3, layers=0),
        "good-heads-16": sidecar(first=[i % 4 + i // 4 % 3 * 1024 for i in range(12)]),
        "good-proposer": sidecar(proposer=(2, 12), layers=3),
        "good-proposer-output": sidecar(proposer=(2, 12), layers=3, m=2),
        "good-proposer-other-shape": sidecar(proposer=(5, 4), layers=3, m=4),
        "bad-proposer-layer": sidecar(proposer=(2, 12), layers=3, m=3),
        "bad-proposer-layers-few": sidecar(proposer=(2, 12), layers=2),
        "bad-proposer-embd": sidecar(proposer=(2, 2**31), layers=0),
        "bad-proposer-embd-0": sidecar(proposer=(2, 0), layers=0),
        "bad-proposer-hash-type": sidecar(proposer=(2, 12), layers=3, keys=[
            ("palimpsest.proposer.hash", key("palimpsest.proposer.hash", U32, 1))]),
        **{"bad-proposer-no-" + name: sidecar(proposer=(2, 12), layers=3,
                                              drop="palimpsest.proposer." + name)
           for name in ("hash", "layers", "embd")},
        "bad-sum": sidecar(odd=True),
        "bad-heads-none": sidecar(first=()),
        "bad-heads-many": sidecar(first=range(17)),
        "bad-head": sidecar(first=(4,)),
        "bad-head-layer": sidecar(later=(3 * 1024,)),
        "bad-head-huge": sidecar(later=(2**32 - 1,)),
        "bad-head-twice": sidecar(first=(1, 0, 1)),
        "bad-layer-0": sidecar(m=0, layers=3),
        "bad-layer-4": sidecar(m=4, layers=0),
        "bad-layers-few": sidecar(layers=1),
        "bad-layers-many": sidecar(layers=3),
        "bad-shape": sidecar(shape=(16, 8)),
        "bad-type": sidecar(kind="bf16"),
        "bad-bias-type": sidecar(bias="f16"),
        "bad-nan-half": sidecar(value=("weight", b"\0\x7e")),
        "bad-nan": sidecar(kind="f32", value=("weight", nan)),
        "bad-nan-bias": sidecar(value=("bias", nan)),
        "bad-version": sidecar(keys=[("palimpsest.version", key("palimpsest.version", U32, 2))]),
        "bad-architecture": sidecar(keys=[("general.architecture",
                                           key("general.architecture", STRING, "qwen3"))]),
        "bad-hash-type": sidecar(keys=[("palimpsest.model_hash",
                                        key("palimpsest.model_hash", U32, 1))]),
        **{"bad-no-" + name.replace(".", "-"): sidecar(drop=name)
           for name in ("palimpsest.sum", "general.architecture", "palimpsest.version",
                        "palimpsest.model_hash", "palimpsest.project.layer",
                        "palimpsest.select.first", "palimpsest.select.later")},
    }


def evidence():
    """Evidence of two questions, without figures."""
    hash_of = lambda n: f"{n:016x}"
    names = [("oracle", "full", "none"), ("window", "window", "none"),
             ("recompute", "restored", "recompute")]
    arms = [{"name": n, "policy": p, "source": s, "selection": "default",
             "positions": "compact"} for n, p, s in names]
    arms.append({**arms[2], "name": "recompute!zero", "control": "zero", "of": "recompute"})
    runs = [{"arm": a["name"], "log": hash_of(9), "kv_bytes": 10, "rss_bytes": 5,
             "peak_bytes": 6, "answers": "1 2;3", "live": live} for a, live in
            zip(arms, ["0 0 0 0 0 9;0 0 0 0 0 9", "500 0 0 0 0 9;500 0 0 0 0 9",
                       *["500 2 40 0 1 9;500 2 40 1 0 9"] * 2])]
    questions = [{"kind": "key", "fact": [0], "ask": 0, "needles": [[20, 30]], "expect": "1 2"},
                 {"kind": "two", "fact": [0, 1], "ask": 0, "needles": [[40, 50], [60, 70]],
                  "expect": "4"}]
    return {"format": "palimpsest-recall-1", "machine": {}, "build": {},
            "model": {"hash": hash_of(5), "n_vocab": 16, "name": "<&\">"},
            "parameters": {"seed": "1", "tasks_hash": hash_of(6), "filler_hash": hash_of(7),
                           "lengths": [600, 5000], "kinds": ["key", "two"], "questions": 1,
                           "turns": 0, "oracle_max": 600, "sink": 4, "window": 100,
                           "n_ctx_train": 600, "chunk_bytes": 64, "restored_max": 192,
                           "exact_full_layers": False},
            "arms": arms,
            "logs": [{"length": 600, "turns": False, "hash": hash_of(9), "questions": questions,
                      "runs": runs},
                     {"length": 5000, "turns": False, "hash": hash_of(10),
                      "questions": copy.deepcopy(questions),
                      "runs": [{**r, "log": hash_of(10)} for r in runs[1:]]}],
            "text": [{"length": 600, "n": 4, "runs": [{"arm": "window", "agree": 3, "kl": .5}]}]}


def changed(value, path):
    """Copies of an object, each with one member left out or of another kind."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for key, old in items:
        name = f"{path}-{key}"
        for what, new in (("none", None), ("huge", 10**18)):
            copied = copy.deepcopy(value)
            if what == "none":
                del copied[key]
            else:
                copied[key] = new
            yield name + "-" + what, copied
        if isinstance(old, (dict, list)) and old and (not isinstance(key, int) or key == 0):
            for inner, new in changed(old, name):
                copied = copy.deepcopy(value)
                copied[key] = new
                yield inner, copied


def recall():
    dump = lambda kind, j: bytes([kind]) + json.dumps(j, separators=(",", ":")).encode()
    tasks = {"grammar": {"d": ["0", "1"], "name": ["a{d}", "b{d}"]}, "share": 0.25,
             "kinds": {"key": {"vars": {"n": "name", "c": "d"}, "key": ["n"],
                               "facts": [["{n} is {c}."]], "questions": ["{n}?"], "lead": " ",
                               "chat_lead": "", "answer": "{c}"}},
             "plain": {"before": "Q", "between": "A"}, "chat": {"before": "", "between": ""}}
    out = {"empty": b"", "text": b"\0nonsense", "list": b"\0[]", "fitted": dump(1, evidence()),
           "unfitted": dump(0, evidence()), "tasks": dump(2, tasks)}
    out.update({"fitted" + n: dump(1, j) for n, j in changed(evidence(), "")})
    out.update({"tasks" + n: dump(2, j) for n, j in changed(tasks, "")})
    return out


def map_evidence():
    plain = {"output": "00000000000000aa", "turns": "3 30;2 20"}
    own = {"output": "00000000000000aa", "turns": "3 3 1 5 2 10;2 2 2 0 0 20"}
    source = {"name": "ngram", "proposals": 2, "drafted": 5, "accepted": 2,
              "guessed": 9, "right": 3, "seconds": 0.5}
    return {"format": "palimpsest-map-1", "machine": {}, "build": {}, "kv": "full",
            "model": {"name": "m", "hash": "0123456789abcdef"}, "threads": 1,
            "parameters": {"replay": False, "pairs": 1, "most": 3, "turns": 0, "temp": 0.5,
                           "seed": "1", "vocabulary": "0123456789abcdef", "drafters": ["ngram"],
                           "isas": ["avx2"], "modes": ["greedy"],
                           "workloads": [{"name": "<chat>", "hash": "00000000000000bb",
                                          "given": 5, "replies": "4 2"}]},
            "runs": [{"isa": "avx2", "workload": "<chat>", "mode": "greedy", "plain": [plain],
                      "drafted": [{"drafter": "ngram", "pairs": [own], "sources": [source]}]}]}


def maps():
    dump = lambda kind, j: bytes([kind]) + json.dumps(j, separators=(",", ":")).encode()
    given, reply = b"=== given\n", b"=== reply\n"
    out = {"empty": b"", "text": b"\0nonsense", "list": b"\0[]", "fitted": dump(1, map_evidence()),
           "unfitted": dump(0, map_evidence()),
           "transcript": b"\2" + given + b"a\n" + reply + b"b\nc" + b"\n" + given + b"d\n" + reply + b"e",
           "transcript-empty": b"\2", "transcript-ends": b"\2" + given + b"a\n",
           "transcript-twice": b"\2" + given + given, "transcript-nothing": b"\2" + given + reply,
           "transcript-bytes": b"\2" + given + b"\xff" + reply + b"\0"}
    out.update({"fitted" + n: dump(1, j) for n, j in changed(map_evidence(), "")})
    return out


def session(ids=(1, 2, 3, 4, 5, 99), events=((3, 2, (0, 7), (0, 3)), (6, 1, (), ())),
            changes=((5, 2, 1, (3,), (4, 5)), (6, 0, 1, (), ())), seal=1, cut=0, more=b"", magic=b"PALSESSN",
            version=1, **fields):
    """A session's file, see session.c, of a model with 100 tokens, whose record has these fields."""
    f = {"created": 1.5, "used": 2.5, "turns": 3, "length": len(ids), "remaining": 7,
         "n_events": len(events), "n_changes": len(changes), "seed": 9, "temperature": 0.5,
         "top_p": 1.0, "min_p": 0.0, "repeat_penalty": 1.0, "top_k": 40, "repeat_last": 64,
         "n_eos": 2, "eos": (98, 99), "stateless": 0, "generating": 1, "label": b"a session",
         **fields}
    record = struct.pack("<ddqqqQQQffffiii16iBBH128s", *list(f.values())[:15],
                         *(tuple(f["eos"]) + (0,) * 16)[:16], f["stateless"], f["generating"], 0,
                         f["label"])
    body = struct.pack(f"<{len(ids)}i", *ids)
    for position, reread, chunks, sources, *count in events:
        body += struct.pack(f"<qii{len(chunks)}i", position, reread, *(count or [len(chunks)]),
                            *chunks) + bytes(sources)
    for at, position, n_events, old, new, *counts in changes:
        body += struct.pack(f"<qqQii{len(old) + len(new)}i", at, position, n_events,
                            *(counts or (len(old), len(new))), *old, *new)
    whole = magic + struct.pack("<IIQQ", version, 0, 0, 0) + record + body + more + b"\0" * 8
    return bytes([seal]) + whole[:len(whole) - cut]


def sessions():
    nan, far = float("nan"), 2**62
    record = {"length": (0, 1, 7, -1, 2**28 + 1, far), "n_events": (0, 1, 3, 2**28 + 1, BIG),
              "n_changes": (0, 1, 3, 2**24 + 1, BIG), "turns": (-1,), "remaining": (-1, far),
              "created": (nan,), "used": (nan, float("inf"), 1e300), "temperature": (nan,),
              "top_p": (nan,), "min_p": (nan,), "repeat_penalty": (nan,), "n_eos": (-2, -1, 0, 17),
              "eos": ((100,), (-1,)), "stateless": (1, 2), "generating": (0, 2),
              "label": (b"", b"x" * 127, b"x" * 128, b"\xff", b"a\0b")}
    out = {"good": session(), "unsealed": session(seal=0), "empty": b"\0", "empty-sealed": b"\1",
           "magic": session(magic=b"PALSESSM"), "version": session(version=2),
           "nothing": session(ids=(), events=(), changes=()),
           "id": session(ids=(100,)), "id-negative": session(ids=(-1,)),
           "behind": session(more=b"\0"), "good-long": session(ids=range(100), changes=()),
           "good-slots": session(ids=range(100), changes=(), events=[(100, 32, range(32), [i % 4 for i in range(32)])])}
    out.update({f"cut-{n}": session(cut=n) for n in (1, 4, 8, 20, 40, 80, 120, 150, 170, 400, 450)})
    for name, values in record.items():
        out.update({f"{name}-{i}": session(**{name: v}) for i, v in enumerate(values)})
    events = {"position": (-1, 1, (), ()), "far": (far, 1, (), ()), "reread": (1, -1, (), ()),
              "chunk": (1, 1, (-1,), (0,)), "order": (1, 1, (5, 4), (0, 0)),
              "twice": (1, 1, (5, 5), (0, 0)), "source": (1, 1, (5,), (4,)),
              "few": (1, 1, (), (), -1), "many": (1, 1, range(33), [0] * 33),
              "more": (1, 1, (), (), 32)}
    out.update({"event-" + name: session(events=[e], changes=()) for name, e in events.items()})
    changes = {"at": (-1, 0, 0, (), ()), "far": (far, 0, 0, (), ()), "position": (5, -1, 0, (), ()),
               "behind": (5, 6, 0, (), ()), "long": (5, 4, 0, (1, 2), ()), "events": (5, 4, BIG, (), ()),
               "old": (5, 4, 0, (100,), ()), "new": (5, 4, 0, (), (-1,)),
               "negative": (5, 4, 0, (), (), -1, 1), "new-negative": (5, 4, 0, (), (), 0, -1),
               "more": (5, 4, 0, (), (), 0, 2**28), "most": (5, 0, 0, (), (), 5, 2**31 - 1)}
    out.update({"change-" + name: session(events=(), changes=[c])
                for name, c in changes.items()})
    late = (5, 4, 0, (), ())
    out.update({"history-event": session(changes=[late]),
                "history-events": session(changes=[late[:2] + (2,) + late[3:]]),
                "history-order": session(events=((6, 1, (), ()), (3, 1, (), ())), changes=()),
                "history-far": session(events=[(7, 1, (), ())], changes=()),
                "history-changes": session(events=(), changes=[(6, 0, 0, (), ()), late]),
                "history-longer": session(events=(), changes=[(6, 0, 0, (), (1,))])})
    return out


def write(folder, files):
    os.makedirs(folder, exist_ok=True)
    for name, data in files.items():
        with open(os.path.join(folder, name), "wb") as f:
            f.write(data)


def calls():
    """Calls of the runtime service: each as it should be, cut short, and with other wire types."""
    text = lambda field, s: bytes([field << 3 | 2, len(s)]) + s
    session = text(1, b"sess-" + b"0" * 32)
    whole = {
        "create": b"\x00" + text(1, b"a label") + text(2, b"\x07\x08"),
        "append": b"\x01" + session + text(2, b"\x01\x02\x63"),
        "append-unpacked": b"\x01" + session + b"\x10\x01\x10\x02",
        "append-outside": b"\x01" + session + text(2, b"\x01\x64"),
        "append-large": b"\x01" + session + text(2, b"\xff\xff\xff\xff\x0f"),
        "generate": b"\x02" + session + b"\x10\x05",
        "generate-all": b"\x02" + session + b"\x10\xff\xff\xff\xff\x0f",
        "generate-sampled": b"\x02" + session + b"\x10\x05\x18\x07\x25\x00\x00\x00\x3f\x2d"
                            b"\x00\x00\xc0\x7f\x30\x28",
        "close": b"\x03" + session,
        "info": b"\x04" + session,
    }
    cut = {f"{name}-cut": data[:-1] for name, data in whole.items()}
    other = {f"{name}-type": data[:1] + bytes([data[1] ^ 2]) + data[2:]
             for name, data in whole.items()}
    empty = {f"empty-{i}": bytes([i]) for i in range(5)}
    return {**whole, **cut, **other, **empty}


def main():
    here = os.path.dirname(os.path.abspath(__file__))
    folder = sys.argv[1] if len(sys.argv) > 1 else os.path.join(here, "corpus")
    bad = {**bad_headers(), **bad_values(), **bad_tensors()}
    write(os.path.join(folder, "gguf"), {f"{kind}-{name}.gguf": data
                                         for kind, files in (("good", good()), ("bad", bad))
                                         for name, data in files.items()})
    write(os.path.join(folder, "corpus"), corpora())
    write(os.path.join(folder, "tiles"), tiles())
    write(os.path.join(folder, "sidecar"), {name + ".gguf": data
                                            for name, data in sidecars().items()})
    write(os.path.join(folder, "recall"), recall())
    write(os.path.join(folder, "map"), maps())
    write(os.path.join(folder, "runtime"), calls())
    write(os.path.join(folder, "session"), sessions())


if __name__ == "__main__":
    main()
