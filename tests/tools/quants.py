"""The weight types of GGUF files: exact dequantisation, and random blocks, with NumPy only.

The block layouts are those of the ggml project. dequantize() gives float64, in which every
type here is exact: a value is a product of a half float and two small integers, or the
difference of two such products. So the oracle sees the weights that the file holds, with no
rounding of its own. tests/peer/logits.py checks every layout against llama.cpp.
"""
from collections import namedtuple

import numpy as np

Type = namedtuple("Type", "number block bytes")  # GGUF's number, weights and bytes a block

TYPES = {
    "f32": Type(0, 1, 4), "f16": Type(1, 1, 2), "bf16": Type(30, 1, 2),
    "q4_0": Type(2, 32, 18), "q4_1": Type(3, 32, 20), "q5_0": Type(6, 32, 22),
    "q5_1": Type(7, 32, 24), "q8_0": Type(8, 32, 34),
    "q2_k": Type(10, 256, 84), "q3_k": Type(11, 256, 110), "q4_k": Type(12, 256, 144),
    "q5_k": Type(13, 256, 176), "q6_k": Type(14, 256, 210),
    "iq4_nl": Type(20, 32, 18), "iq4_xs": Type(23, 256, 136),
}
NAMES = {t.number: name for name, t in TYPES.items()}
FLOATS = ("f32", "f16", "bf16")

# What a matrix gets instead when its rows are not whole blocks of the type.
FALLBACK = {"q2_k": "iq4_nl", "q3_k": "iq4_nl", "q4_k": "q5_0", "q5_k": "q5_1", "q6_k": "q8_0",
            "iq4_xs": "iq4_nl"}

LAYOUT = {
    "q4_0": [("d", "<f2"), ("q", "u1", 16)],
    "q4_1": [("d", "<f2"), ("m", "<f2"), ("q", "u1", 16)],
    "q5_0": [("d", "<f2"), ("h", "<u4"), ("q", "u1", 16)],
    "q5_1": [("d", "<f2"), ("m", "<f2"), ("h", "<u4"), ("q", "u1", 16)],
    "q8_0": [("d", "<f2"), ("q", "i1", 32)],
    "q2_k": [("s", "u1", 16), ("q", "u1", 64), ("d", "<f2"), ("m", "<f2")],
    "q3_k": [("h", "u1", 32), ("q", "u1", 64), ("s", "u1", 12), ("d", "<f2")],
    "q4_k": [("d", "<f2"), ("m", "<f2"), ("s", "u1", 12), ("q", "u1", 128)],
    "q5_k": [("d", "<f2"), ("m", "<f2"), ("s", "u1", 12), ("h", "u1", 32), ("q", "u1", 128)],
    "q6_k": [("q", "u1", 128), ("h", "u1", 64), ("s", "i1", 16), ("d", "<f2")],
    "iq4_nl": [("d", "<f2"), ("q", "u1", 16)],
    "iq4_xs": [("d", "<f2"), ("sh", "<u2"), ("sl", "u1", 4), ("q", "u1", 128)],
}
LAYOUT = {name: np.dtype(fields) for name, fields in LAYOUT.items()}

IQ4_VALUES = np.array([-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113],
                      dtype=np.int64)


def n_bytes(name, count):
    t = TYPES[name]
    if count % t.block:
        raise ValueError(f"{count} weights are not whole blocks of {name}")
    return count // t.block * t.bytes


def fit(name, columns):
    """The type itself, or what replaces it for rows of that many columns."""
    if columns % TYPES[name].block:
        name = FALLBACK.get(name, "f16")
    return name if columns % TYPES[name].block == 0 else "f16"


# --- integers out of packed bytes; each returns int64 of shape (blocks, weights a block) ---


def _nibbles(q):
    """Low halves of the bytes, then high halves: 32 weights in 16 bytes."""
    return np.concatenate([q & 15, q >> 4], axis=-1).astype(np.int64)


def _nibbles64(q):
    """In groups of 64 weights, 32 bytes: low halves, then high halves."""
    return _nibbles(q.reshape(len(q), -1, 32)).reshape(len(q), -1)


def _fifth_bits(h):
    """Bit j of h for weight j."""
    return (h[:, None].astype(np.int64) >> np.arange(32)) & 1


def _crumbs(q):
    """2-bit fields, in groups of 128 weights, 32 bytes: bits 0-1, then 2-3, 4-5, 6-7."""
    q = q.reshape(len(q), -1, 1, 32).astype(np.int64)
    return ((q >> np.array([0, 2, 4, 6])[:, None]) & 3).reshape(len(q), -1)


def _planes(h):
    """Bit i of 32 bytes for weights 32 i to 32 i + 31."""
    return ((h[:, None, :].astype(np.int64) >> np.arange(8)[:, None]) & 1).reshape(len(h), -1)


def _scales_mins(s):
    """Q4_K and Q5_K: eight 6-bit scales and eight 6-bit minima in 12 bytes."""
    s = s.astype(np.int64)
    low, mid, high = s[:, 0:4], s[:, 4:8], s[:, 8:12]
    scales = np.concatenate([low & 63, (high & 15) | (low >> 6) << 4], axis=1)
    mins = np.concatenate([mid & 63, (high >> 4) | (mid >> 6) << 4], axis=1)
    return scales, mins


def _scales_q3(s):
    """Q3_K: sixteen 6-bit scales, less 32: 8 bytes of low nibbles, 4 of high bit pairs."""
    s = s.astype(np.int64)
    low = np.concatenate([s[:, 0:8] & 15, s[:, 0:8] >> 4], axis=1)
    high = np.concatenate([(s[:, 8:12] >> shift) & 3 for shift in (0, 2, 4, 6)], axis=1)
    return (low | high << 4) - 32


def _scales_iq4(high, low):
    """IQ4_XS: eight 6-bit scales, less 32."""
    i = np.arange(8)
    low = (low.astype(np.int64)[:, i // 2] >> (4 * (i % 2))) & 15
    return (low | ((high.astype(np.int64)[:, None] >> (2 * i)) & 3) << 4) - 32


def _each(scales, n_weights):
    """Per-group factors to one factor a weight."""
    return np.repeat(scales, n_weights // scales.shape[1], axis=1)


# --- values ---


def _blocks(name, b):
    """Values of structured blocks b, float64, (blocks, weights a block)."""
    d = b["d"].astype(np.float64)[:, None]
    m = b["m"].astype(np.float64)[:, None] if "m" in b.dtype.names else None
    if name == "q8_0":
        return d * b["q"]
    if name == "q4_0":
        return d * (_nibbles(b["q"]) - 8)
    if name == "q4_1":
        return d * _nibbles(b["q"]) + m
    if name == "q5_0":
        return d * ((_nibbles(b["q"]) | _fifth_bits(b["h"]) << 4) - 16)
    if name == "q5_1":
        return d * (_nibbles(b["q"]) | _fifth_bits(b["h"]) << 4) + m
    if name == "iq4_nl":
        return d * IQ4_VALUES[_nibbles(b["q"])]
    if name == "iq4_xs":
        q = _nibbles(b["q"].reshape(len(b), 8, 16)).reshape(len(b), -1)
        return d * _each(_scales_iq4(b["sh"], b["sl"]), 256) * IQ4_VALUES[q]
    if name == "q2_k":
        s = b["s"].astype(np.int64)
        return d * _each(s & 15, 256) * _crumbs(b["q"]) - m * _each(s >> 4, 256)
    if name == "q3_k":
        q = _crumbs(b["q"]) - 4 * (1 - _planes(b["h"]))
        return d * _each(_scales_q3(b["s"]), 256) * q
    if name == "q6_k":
        low = b["q"].reshape(len(b), 2, 64)
        low = np.concatenate([low & 15, low >> 4], axis=-1).reshape(len(b), -1).astype(np.int64)
        q = (low | _crumbs(b["h"]) << 4) - 32
        return d * _each(b["s"].astype(np.int64), 256) * q
    scales, mins = _scales_mins(b["s"])
    q = _nibbles64(b["q"])
    if name == "q5_k":
        q |= _planes(b["h"]) << 4
    return d * _each(scales, 256) * q - m * _each(mins, 256)


def dequantize(name, raw):
    """Bytes (uint8 array or bytes) of a type to its exact values: float64, flat."""
    raw = np.frombuffer(raw, dtype=np.uint8)
    if name == "f32":
        return raw.view("<f4").astype(np.float64)
    if name == "f16":
        return raw.view("<f2").astype(np.float64)
    if name == "bf16":
        return (raw.view("<u2").astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return _blocks(name, raw.view(LAYOUT[name])).reshape(-1)


def encode(name, values):
    """float32 values to the bytes of a float type; bf16 rounds to nearest even."""
    values = np.asarray(values, dtype=np.float32)
    if name == "f32":
        return values.astype("<f4").tobytes()
    if name == "f16":
        return values.astype("<f2").tobytes()
    if name == "bf16":
        bits = values.view(np.uint32)
        return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2").tobytes()
    raise ValueError(f"{name} is not a float type")


# Root mean square of the random blocks below for d = 1 (and m at its own ratio to d, where the
# mean of the values is zero), so that `scale` is about the weights' standard deviation.
MIN_RATIO = {"q4_1": 7.5, "q5_1": 15.5, "q2_k": 1.5, "q4_k": 7.5, "q5_k": 15.5}


def _random(rng, name, n):
    """n blocks with random integers and d = 1, m by MIN_RATIO."""
    b = np.frombuffer(rng.bytes(n * TYPES[name].bytes), dtype=LAYOUT[name]).copy()
    b["d"] = 1
    if name in ("q4_1", "q5_1"):
        b["m"] = -MIN_RATIO[name]
    elif name in MIN_RATIO:
        b["m"] = MIN_RATIO[name]
    if name == "q8_0":
        b["q"] = np.maximum(b["q"], -127)
    elif name == "q6_k":  # as real files have them: large, of either sign
        sign = rng.integers(0, 2, size=(n, 16)) * 2 - 1
        b["s"] = rng.integers(32, 128, size=(n, 16)) * sign
    return b


def random_blocks(rng, name, count, scale):
    """count random weights of a type with a standard deviation of about scale: bytes.
    Every bit of every block varies, and each block has scales of its own."""
    if name in FLOATS:
        return encode(name, rng.standard_normal(count, dtype=np.float32) * np.float32(scale))
    n = count // TYPES[name].block
    sample = _random(np.random.default_rng(1), name, 64)
    unit = scale / np.sqrt(np.mean(_blocks(name, sample) ** 2))
    b = _random(rng, name, n)
    jitter = unit * rng.uniform(0.5, 1.4, size=n)
    b["d"] = jitter * (1 - 2 * (rng.random(n) < 0.5) if name in ("q4_0", "q5_0", "iq4_nl",
                                                                 "iq4_xs", "q3_k") else 1)
    if name in MIN_RATIO:
        # minima that do not quite centre the block: real ones do not either
        b["m"] = b["m"] * (jitter * rng.uniform(0.9, 1.1, size=n))
    return b.tobytes()
