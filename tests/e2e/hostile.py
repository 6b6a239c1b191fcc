#!/usr/bin/python3
"""Model files that lie: pal must refuse each with one line that names file and key or tensor.

  hostile.py PAL

Each variant is a small valid model (tests/tools/mkmodel.py) of some architecture with one thing
wrong. `pal logits` and `pal run` must end with exit code 1, an empty standard output and one
line on standard error; `pal inspect` refuses what is no GGUF file and says of the rest why it
cannot be run. Then files that are cut, or shrink while they are read, requests that are absurd,
and too little memory. Weights that are not numbers load: they make NaN logits, not a crash.
Speaks TAP; needs numpy.
"""
import os
from pathlib import Path
import re
import resource
import subprocess
import sys
import tempfile
import threading
import time

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "tools"))

import numpy as np  # noqa: E402

import gguf  # noqa: E402
import harness  # noqa: E402
import mkmodel  # noqa: E402
import quants  # noqa: E402
from tap import sanitized  # noqa: E402

NAN, INF = float("nan"), float("inf")
IDS = "1 2 3"
ROPED = ("qwen3", "qwen2", "llama")  # take YaRN


class Draft(gguf.Writer):
    """A model whose keys and tensors can be changed before it is written."""

    def __init__(self, arch):
        super().__init__()
        self.spec = mkmodel.Spec(arch=arch, layers=2, dim=64, heads=4, kv_heads=2, head_dim=32,
                                 ff=96, vocab=264, ctx=512, type="q8_0", tied=arch != "qwen2",
                                 rope="llama3" if arch == "llama" else "none", seed=3)
        self.keys, self.table = {}, []
        mkmodel.metadata(self, self.spec)
        for name, shape, kind, type_name in mkmodel.tensors(self.spec):
            self.put(name, shape, type_name,
                     mkmodel.contents(self.spec, name, shape, kind, type_name))

    def set(self, key, kind, value):
        self.keys[key] = (kind, value)

    def key(self, name, kind, value):
        """Sets a key of the architecture."""
        self.set(f"{self.spec.arch}.{name}", kind, value)

    def put(self, name, shape, type_name, data=None):
        self.drop(name)
        size = quants.n_bytes(type_name, int(np.prod(shape)))
        self.table.append((name, tuple(shape), type_name, bytes(size) if data is None else data))

    def drop(self, name):
        self.table = [t for t in self.table if t[0] != name]

    def find(self, name):
        return next(t for t in self.table if t[0] == name)

    def floats(self, name, values, type_name="f32"):
        """A vector of these values."""
        self.put(name, (len(values),), type_name, quants.encode(type_name, np.array(values)))

    def poison(self, name, value, at=1):
        """Puts a value into a vector."""
        _, shape, _, data = self.find(name)
        values = np.frombuffer(data, "<f4").copy()
        values[at] = value
        self.put(name, shape, "f32", values.tobytes())

    def save(self, path):
        self.meta, self.tensors = [], self.table
        for key, (kind, value) in self.keys.items():
            super().set(key, kind, value)
        self.write(path)
        return path


# --- what is wrong: (name, architectures, change, words of the message) -----------------------


def key(name, kind, value, words="", archs=mkmodel.ARCHS):
    """A key of the architecture is set to something absurd; value None: it is missing."""
    def change(d):
        if value is None:
            del d.keys[f"{d.spec.arch}.{name}"]
        else:
            d.key(name, kind, value)
    text = "missing" if value is None else str(value)
    return f"{name} = {kind} {text}", archs, change, words or re.escape(name)


def shape(name, rows, columns, archs=mkmodel.ARCHS):
    """A matrix, or for rows 0 a vector, has another shape."""
    def change(d):
        if rows:
            d.put(name, (rows, columns), "q8_0")
        else:
            d.put(name, (columns,), "f32")
    return f"shape of {name}", archs, change, f"tensor {name} has the shape .* expected"


def missing(name, archs=mkmodel.ARCHS):
    return (f"without {name}", archs, lambda d: d.drop(name), f"tensor {name} is missing")


def poison(name, value, archs=mkmodel.ARCHS):
    return (f"{value} in {name}", archs, lambda d: d.poison(name, value),
            f"tensor {name}: value 1 is not finite")


def quantised(name, archs=mkmodel.ARCHS):
    def change(d):
        d.put(name, d.find(name)[1], "q8_0")
    return (f"{name} is quantised", archs, change,
            f"tensor {name}: type Q8_0 is not supported for a vector")


def extra(name, archs=mkmodel.ARCHS):
    return (f"extra {name}", archs, lambda d: d.put(name, (64,), "f32"),
            f"tensor {re.escape(name)} has no place")


def vocabulary(d, n):
    """A vocabulary of n tokens more than the embedding has rows (fewer: n below 0)."""
    for name, kind, more in (("tokens", "str", "more"), ("token_type", "i32", 1)):
        value = d.keys["tokenizer.ggml." + name][1]
        value = value[:n] if n < 0 else value + [f"{more}{i}" if kind == "str" else more
                                                 for i in range(n)]
        d.set("tokenizer.ggml." + name, kind, value)
    for name in ("bos", "eos"):
        d.set(f"tokenizer.ggml.{name}_token_id", "u32", 0)


def rope_freqs(name, change, words):
    return (f"rope_freqs: {name}", ("llama",), change, "rope_freqs.weight: " + words)


def token_id(name, kind, value):
    full = f"tokenizer.ggml.{name}_token_id"
    return (f"{name} id {value}", mkmodel.ARCHS, lambda d: d.set(full, kind, value), full)


SIZES = [
    key(name, "u32", value, words)
    for name, words in (("block_count", ""), ("embedding_length", ""), ("feed_forward_length", ""),
                        ("attention.head_count", ""), ("attention.head_count_kv", ""),
                        ("context_length", ""), ("attention.key_length", ""))
    for value in (0, 0xffffffff)
] + [
    key(name, "u32", None) for name in ("block_count", "embedding_length", "feed_forward_length",
                                        "attention.head_count", "context_length")
] + [
    key("block_count", "u32", 1, "tensor blk.1.* has no place"),
    key("block_count", "u32", 3, "tensor blk.2.* is missing"),
    key("block_count", "u32", 1025), key("block_count", "i32", -1), key("block_count", "f32", 2.0),
    key("block_count", "str", "two"), key("block_count", "u64", 1 << 63),
    key("embedding_length", "u32", 96, "token_embd.weight has the shape"),
    key("feed_forward_length", "u32", 64, "ffn_gate.weight has the shape"),
    key("attention.head_count", "u32", 3, "not a multiple"),
    key("attention.head_count", "u32", 8, "attn_q.weight has the shape"),
    key("attention.head_count_kv", "u32", 3, "not a multiple"),
    key("attention.head_count_kv", "u32", 8, "not a multiple"),
    key("attention.head_count_kv", "u32", 4, "attn_k.weight has the shape"),
    key("attention.head_count_kv", "u32", None, "attn_k.weight has the shape"),
    key("attention.key_length", "u32", 31, "value_length|odd"),
    key("attention.value_length", "u32", 64, "value_length differs"),
    key("attention.key_length", "u32", 1), key("attention.key_length", "u32", 1026),
    key("rope.dimension_count", "u32", 0), key("rope.dimension_count", "u32", 31),
    key("rope.dimension_count", "u32", 64, "larger than a head"),
]

NUMBERS = [
    key("attention.layer_norm_rms_epsilon", "f32", value)
    for value in (NAN, INF, -1.0, 2.0, None)
] + [
    key("rope.freq_base", "f32", value) for value in (0.0, 1.0, -10000.0, NAN, INF, 1e30)
] + [
    key("rope.freq_base", "u32", 10000),
    key("rope.scaling.type", "str", "longrope"), key("rope.scaling.type", "str", ""),
    key("rope.scaling.type", "u32", 1),
    *(key("rope.scaling.factor", "f32", v) for v in (NAN, INF, -4.0, 1e-9)),
    key("rope.scale_linear", "f32", NAN),
    *(key("attention.sliding_window", "u32", v, "", ("gemma3",)) for v in (0, None, 1 << 30)),
    key("attention.sliding_window_pattern", "u32", 0, "", ("gemma3",)),
    key("final_logit_softcapping", "f32", NAN, "", ("gemma3",)),
    key("rope.freq_base_swa", "f32", 0.5, "", ("gemma3",)),
    key("rope.scaling.type", "str", "yarn", "yarn is not supported for gemma3", ("gemma3",)),
    key("attention.scale", "f32", NAN, "", ("llama",)),
]


def yarn(name, kind, value):
    full = "rope.scaling." + name

    def change(d):
        d.key("rope.scaling.type", "str", "yarn")
        d.key("rope.scaling.factor", "f32", 4.0)
        d.key(full, kind, value)
    return f"yarn: {name} = {value}", ROPED, change, re.escape(full)


YARN = [yarn("original_context_length", "u32", 0), yarn("yarn_beta_fast", "f32", 0.0),
        yarn("yarn_beta_slow", "f32", NAN), yarn("attn_factor", "f32", INF)]

TENSORS = [
    missing("token_embd.weight"), missing("output_norm.weight"), missing("blk.1.attn_q.weight"),
    missing("blk.0.ffn_down.weight"), missing("blk.1.attn_norm.weight"),
    missing("blk.0.attn_q_norm.weight", ("qwen3", "gemma3")),
    missing("blk.1.attn_v.bias", ("qwen2",)), missing("blk.0.post_ffw_norm.weight", ("gemma3",)),
    shape("token_embd.weight", 264, 96), shape("token_embd.weight", 263, 64),
    shape("blk.0.attn_q.weight", 96, 64), shape("blk.1.attn_v.weight", 128, 64),
    shape("blk.0.attn_output.weight", 128, 64), shape("blk.0.ffn_up.weight", 64, 96),
    shape("blk.1.ffn_down.weight", 96, 64), shape("output_norm.weight", 0, 63),
    shape("blk.0.ffn_norm.weight", 0, 128), shape("output.weight", 263, 64),
    shape("blk.0.attn_k_norm.weight", 0, 64, ("qwen3", "gemma3")),
    shape("blk.0.attn_q.bias", 0, 64, ("qwen2",)),
    ("four dimensions", mkmodel.ARCHS, lambda d: d.put("blk.0.attn_q.weight", (2, 1, 64, 64),
                                                      "f16"), "blk.0.attn_q.weight has the shape"),
    quantised("output_norm.weight"), quantised("blk.1.ffn_norm.weight"),
    quantised("blk.0.attn_k.bias", ("qwen2",)),
    *(poison(name, value) for name in ("output_norm.weight", "blk.1.attn_norm.weight")
      for value in (NAN, INF, -INF)),
    poison("blk.1.attn_q_norm.weight", NAN, ("qwen3", "gemma3")),
    poison("blk.0.attn_k.bias", INF, ("qwen2",)),
    poison("blk.0.post_attention_norm.weight", NAN, ("gemma3",)),
    ("infinite half", mkmodel.ARCHS,
     lambda d: d.floats("output_norm.weight", [1.0] * 63 + [INF], "f16"),
     "output_norm.weight: value 63 is not finite"),
    extra("blk.2.attn_norm.weight"), extra("blk.0.attn_qkv.weight"), extra("nonsense"),
    extra("blk.00.attn_norm.weight"), extra("blk.0.attn_q.bias", ("qwen3", "gemma3")),
    extra("rope_freqs.weight", ("qwen3", "qwen2", "gemma3")),
    ("vocabulary too long", mkmodel.ARCHS, lambda d: vocabulary(d, 5),
     "token_embd.weight has the shape"),
    ("vocabulary too short", mkmodel.ARCHS, lambda d: vocabulary(d, -5),
     "token_embd.weight has the shape"),
    ("types of fewer tokens", mkmodel.ARCHS,
     lambda d: d.set("tokenizer.ggml.token_type", "i32", [1] * 5), "token_type has 5 entries"),
    token_id("bos", "u32", 264), token_id("eos", "u32", 0xffffffff), token_id("eot", "i32", -1),
    token_id("unknown", "u32", 1 << 20), token_id("bos", "f32", 1.0),
    ("architecture", mkmodel.ARCHS, lambda d: d.set("general.architecture", "str", "gpt5"),
     "general.architecture: gpt5 is not supported"),
    ("no architecture", mkmodel.ARCHS, lambda d: d.keys.pop("general.architecture"),
     "general.architecture"),
    ("architecture is a number", mkmodel.ARCHS,
     lambda d: d.set("general.architecture", "u32", 3), "general.architecture"),
    rope_freqs("too many", lambda d: d.floats("rope_freqs.weight", [1.0] * 32), "expected F32"),
    rope_freqs("too few", lambda d: d.floats("rope_freqs.weight", [1.0] * 15), "expected F32"),
    rope_freqs("halves", lambda d: d.floats("rope_freqs.weight", [1.0] * 16, "f16"),
               "expected F32"),
    *(rope_freqs(str(v), lambda d, v=v: d.poison("rope_freqs.weight", v), "value 1 is")
      for v in (NAN, INF, 0.0, -1.0, 1e-9)),
]



def too_fast(d):
    d.key("rope.scaling.type", "str", "linear")
    d.key("rope.scaling.factor", "f32", 2e-6)
    d.floats("rope_freqs.weight", [2e-6] * 16)


TENSORS.append(("angles beyond what can be reduced", ("llama",), too_fast, "rope.scaling.factor"))

# These are no GGUF files at all: `pal inspect` refuses them too.
NOT_GGUF = [
    ("duplicate tensor", mkmodel.ARCHS, lambda d: d.table.append(d.find("blk.0.attn_q.weight")),
     "blk.0.attn_q.weight"),
]


# --- what must happen ----------------------------------------------------------------------


class Hostile:
    def __init__(self, pal, folder):
        self.pal, self.folder, self.tap = pal, folder, harness.Tap()
        self.sanitized = sanitized(pal)

    def path(self, name="model.gguf"):
        return os.path.join(self.folder, name)

    def run(self, *args, stdin=IDS, **more):
        return subprocess.run([self.pal, *map(str, args)], input=stdin.encode(),
                              capture_output=True, timeout=120, check=False, **more)

    def refusal(self, words, done, path="model.gguf"):
        """"" or what is wrong with how pal refused."""
        message = done.stderr.decode("utf-8", "replace")
        told = f"exit status {done.returncode}, {len(done.stdout)} bytes written, {message[:600]!r}"
        good = (done.returncode == 1 and not done.stdout and message.startswith("pal: ")
                and message.count("\n") == 1 and path in message and re.search(words, message))
        return "" if good else f"wanted a refusal with {words!r}: {told}"

    def explained(self, words, done):
        """"" or what is wrong with how pal inspect told that a file cannot be run."""
        text = done.stdout.decode("utf-8", "replace")
        good = (done.returncode == 0 and not done.stderr
                and re.search(r"(?m)^memory: not known: .*model\.gguf: .*(" + words + ")", text))
        return "" if good else (f"wanted a report with {words!r}: exit status {done.returncode}, "
                                f"{done.stderr[:400]!r}, {text[-300:]!r}")

    def check(self, name, complaints):
        self.tap.check(not any(complaints), name, "\n".join(filter(None, complaints)))

    def variants(self, table, gguf_level=False):
        for arch in mkmodel.ARCHS:
            for name, archs, change, words in table:
                if arch not in archs:
                    continue
                d = Draft(arch)
                change(d)
                path = d.save(self.path())
                found = self.run("inspect", path)
                self.check(f"{arch}: {name}", [
                    self.refusal(words, self.run("logits", path, "-t", 2)),
                    self.refusal(words, self.run("run", path, "-p", "a", "-n", 2)),
                    self.refusal(words, found) if gguf_level else self.explained(words, found)])

    def valid(self):
        """What all others are variants of does run."""
        for arch in mkmodel.ARCHS:
            d = Draft(arch)
            path = d.save(self.path(f"{arch}.gguf"))
            done = self.run("logits", path)
            logits = np.frombuffer(done.stdout, "<f4")
            self.tap.check(done.returncode == 0 and len(logits) == 3 * 264
                           and np.isfinite(logits).all(), f"{arch}: valid", done.stderr.decode())

    def vectors(self):
        """Norms and biases may be halves, too: the same logits as their values in F32."""
        for arch in mkmodel.ARCHS:
            for type_name in ("f16", "bf16"):
                halves, floats = Draft(arch), Draft(arch)
                for name, size, _, raw in list(halves.table):
                    if len(size) == 1 and name != "rope_freqs.weight":
                        rounded = quants.encode(type_name, np.frombuffer(raw, "<f4"))
                        values = quants.dequantize(type_name, np.frombuffer(rounded, np.uint8))
                        halves.put(name, size, type_name, rounded)
                        floats.floats(name, values.reshape(-1))
                one, two = (self.run("logits", d.save(self.path(n)))
                            for d, n in ((halves, "halves.gguf"), (floats, "floats.gguf")))
                self.tap.check(one.stdout and one.stdout == two.stdout,
                               f"{arch}: vectors are {type_name}", one.stderr.decode())

    def not_numbers(self):
        """Matrices of NaN or infinity: logits are NaN, and greedy still picks a token."""
        for arch in mkmodel.ARCHS:
            for value, type_name in ((NAN, "f32"), (INF, "f16"), (NAN, "q8_0")):
                d = Draft(arch)
                for name, size, _, _ in [t for t in d.table if len(t[1]) == 2]:
                    raw = (quants.encode(type_name, np.full(size, value)) if type_name != "q8_0"
                           else (b"\x00\x7e" + bytes(range(32))) * (size[0] * size[1] // 32))
                    d.put(name, size, type_name, raw)
                path = d.save(self.path())
                done, said = self.run("logits", path), self.run("run", path, "--ids", "-n", 3)
                logits = np.frombuffer(done.stdout, "<f4")
                self.tap.check(done.returncode == 0 and len(logits) == 3 * 264
                               and np.isnan(logits).all() and said.returncode == 0
                               and all(0 <= int(i) < 264 for i in said.stdout.split())
                               and said.stdout, f"{arch}: all weights are {value} ({type_name})",
                               f"{logits[:4]} {done.stderr[-300:]} {said}")

    def cut(self):
        """A file that ends inside its tensor data, in the padding, or inside its metadata."""
        whole = Path(Draft("qwen2").save(self.path("whole.gguf"))).read_bytes()
        for keep in (len(whole) - 40, len(whole) // 2, len(whole) // 50, 30, 3):
            Path(self.path()).write_bytes(whole[:keep])
            self.check(f"cut after {keep} of {len(whole)} bytes", [
                self.refusal("model.gguf: ", self.run(command, self.path()))
                for command in ("logits", "inspect", "run")])

    def shrinking(self):
        """A file that gets shorter while it is loaded: refused, or read before it shrank."""
        spec = mkmodel.Spec(layers=4, dim=512, ff=2048, vocab=4096, type="f32")
        mkmodel.write(self.path("big.gguf"), spec)
        whole = Path(self.path("big.gguf")).read_bytes()
        begun = time.monotonic()
        done = self.run("logits", self.path("big.gguf"), "-t", 2)
        took, want = time.monotonic() - begun, done.stdout
        refused = 0
        for i in range(24):
            Path(self.path()).write_bytes(whole)
            timer = threading.Timer(took * i / 24, os.truncate,
                                    (self.path(), len(whole) * (i * 7 % 24) // 24))
            timer.start()
            done = self.run("logits", self.path(), "-t", 2)
            timer.join()
            if done.returncode == 0:
                self.check(f"shrinks at {i}/24 of the run: read before",
                           ["" if done.stdout == want and not done.stderr else "other logits"])
            else:
                refused += 1
                self.check(f"shrinks at {i}/24 of the run: refused",
                           [self.refusal("model.gguf: ", done)])
        self.tap.check(refused, "some of the files that shrank were refused")

    def requests(self):
        path = Draft("qwen3").save(self.path())
        long = " ".join(["7"] * 9)
        for name, words, args, ids in (
                ("--ctx 0", "--ctx 0", ("run", "--ids", "--ctx", 0), IDS),
                ("--ctx 2^40", "--ctx", ("run", "--ids", "--ctx", 1 << 40), IDS),
                ("--ctx -1", "--ctx", ("run", "--ids", "--ctx", -1), IDS),
                ("prompt longer than the context", "context", ("run", "--ids", "--ctx", 8), long),
                ("prompt longer than the trained context", "context", ("run", "--ids"),
                 "5 " * 513),
                ("id beyond the vocabulary", "264", ("run", "--ids"), "1 264"),
                ("id beyond the vocabulary", "264", ("logits",), "1 2 264"),
                ("id beyond 2^32", "4294967297", ("logits",), "4294967297"),
                ("negative id", "-1", ("logits",), "1 -1 2"),
                ("no number", "x", ("logits",), "1 x 2")):
            self.check(name, [self.refusal(words, self.run(args[0], path, *args[1:], stdin=ids),
                                           "")])

    def out_of_memory(self):
        """Address space for the program, and then ever more of what the model needs."""
        if self.sanitized:
            self.tap.skip("out of memory", "sanitizers need the address space themselves")
            return
        spec = mkmodel.Spec(layers=4, dim=512, ff=2048, vocab=4096, type="f32", ctx=1 << 16)
        mkmodel.write(self.path(), spec)
        outcomes = set()
        for mib in (*range(16, 400, 16), 1 << 14):
            limit = lambda n=mib << 20: resource.setrlimit(resource.RLIMIT_AS, (n, n))
            done = self.run("run", self.path(), "--ids", "-n", 2, "-t", 2, preexec_fn=limit)
            loaded = b"error while loading shared libraries" not in done.stderr
            if done.returncode == 0:
                outcomes.add("ran")
            elif loaded:
                outcomes.add("refused")
                self.check(f"{mib} MiB of address space", [self.refusal(
                    "out of memory|Cannot allocate memory|cannot start thread", done, "")])
        self.tap.check(outcomes == {"ran", "refused"}, "from too little memory to enough",
                       str(outcomes))


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as folder:
        h = Hostile(os.path.abspath(sys.argv[1]), folder)
        h.valid()
        h.vectors()
        h.variants(SIZES + NUMBERS + YARN + TENSORS)
        h.variants(NOT_GGUF, gguf_level=True)
        h.not_numbers()
        h.cut()
        h.shrinking()
        h.requests()
        h.out_of_memory()
        h.tap.finish()


if __name__ == "__main__":
    main()
