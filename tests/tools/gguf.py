"""Reads and writes GGUF model files, versions 2 and 3 (little-endian), with NumPy only.

Follows the ggml project's specification. Shapes are in NumPy's order here: a matrix is
(rows, columns) although the file lists the length of a row first. The reader checks
little, since it reads what our own tools wrote; it is not the engine's reader.
"""
import struct

import numpy as np

import quants

ALIGN = 32

# value type -> (number, struct format)
SCALARS = {
    "u8": (0, "B"), "i8": (1, "b"), "u16": (2, "H"), "i16": (3, "h"), "u32": (4, "I"),
    "i32": (5, "i"), "f32": (6, "f"), "bool": (7, "?"), "u64": (10, "Q"), "i64": (11, "q"),
    "f64": (12, "d"),
}
STRING, ARRAY = 8, 9
BY_NUMBER = {number: code for number, code in SCALARS.values()}


class Tensor:
    """name, shape (NumPy order), type name as in quants.TYPES, raw: its bytes (uint8)."""

    def __init__(self, name, shape, type_name, raw):
        self.name, self.shape, self.type, self.raw = name, tuple(shape), type_name, raw

    def values(self):
        """The exact values of the tensor, float64, in its shape."""
        return quants.dequantize(self.type, self.raw).reshape(self.shape)


class File:
    """version, meta {key: value}, kinds {key: (type number, item type or None)}, tensors {name}."""

    def __init__(self, path):
        self.data = np.memmap(path, dtype=np.uint8, mode="r")
        self.at = 0
        if bytes(self.data[:4]) != b"GGUF":
            raise ValueError(f"{path}: not a GGUF file")
        self.at = 4
        self.version = self._scalar("I")
        if self.version not in (2, 3):
            raise ValueError(f"{path}: GGUF version {self.version} is not handled")
        n_tensors, n_meta = self._scalar("Q"), self._scalar("Q")
        self.meta, self.kinds = {}, {}
        for _ in range(n_meta):
            key = self._string()
            number = self._scalar("I")
            self.meta[key], item = self._value(number)
            self.kinds[key] = (number, item)
        self.tensors = self._tensors(n_tensors)

    def _scalar(self, code):
        size = struct.calcsize("<" + code)
        value = struct.unpack("<" + code, self.data[self.at:self.at + size].tobytes())[0]
        self.at += size
        return value

    def _string(self):
        n = self._scalar("Q")
        value = self.data[self.at:self.at + n].tobytes().decode("utf-8", "surrogateescape")
        self.at += n
        return value

    def _value(self, number):
        if number == STRING:
            return self._string(), None
        if number != ARRAY:
            return self._scalar(BY_NUMBER[number]), None
        item, n = self._scalar("I"), self._scalar("Q")
        return [self._value(item)[0] for _ in range(n)], item

    def _tensors(self, count):
        infos = []
        for _ in range(count):
            name = self._string()
            shape = [self._scalar("Q") for _ in range(self._scalar("I"))][::-1]
            number, offset = self._scalar("I"), self._scalar("Q")
            infos.append((name, shape, quants.NAMES[number], offset))
        align = self.meta.get("general.alignment", ALIGN)
        base = -(-self.at // align) * align
        out = {}
        for name, shape, type_name, offset in infos:
            size = quants.n_bytes(type_name, int(np.prod(shape)))
            out[name] = Tensor(name, shape, type_name,
                               self.data[base + offset:base + offset + size])
        return out


def _packed_string(text):
    raw = text.encode("utf-8", "surrogateescape")
    return struct.pack("<Q", len(raw)) + raw


class Writer:
    """Collects metadata and tensors, then writes the file: set(), add(), write()."""

    def __init__(self, version=3):
        self.version, self.meta, self.tensors = version, [], []

    def set(self, key, kind, value):
        """kind: a name of SCALARS or "str"; a list or tuple as value makes an array."""
        def one(v):
            if kind == "str":
                return _packed_string(v)
            return struct.pack("<" + SCALARS[kind][1], v)

        number = STRING if kind == "str" else SCALARS[kind][0]
        if isinstance(value, (list, tuple)):
            body = struct.pack("<IIQ", ARRAY, number, len(value)) + b"".join(map(one, value))
        else:
            body = struct.pack("<I", number) + one(value)
        self.meta.append(_packed_string(key) + body)

    def copy_meta(self, source):
        """Takes over all metadata of a File."""
        names = {number: name for name, (number, _) in SCALARS.items()}
        names[STRING] = "str"
        for key, value in source.meta.items():
            number, item = source.kinds[key]
            self.set(key, names[item if number == ARRAY else number], value)

    def add(self, name, shape, type_name, data):
        """data: the tensor's bytes, or a function without arguments that makes them when the
        file is written (so that large models need not be held in memory)."""
        self.tensors.append((name, tuple(shape), type_name, data))

    def write(self, path):
        with open(path, "wb") as f:
            f.write(b"GGUF" + struct.pack("<IQQ", self.version, len(self.tensors), len(self.meta)))
            f.write(b"".join(self.meta))
            offset = 0
            for name, shape, type_name, _ in self.tensors:
                f.write(_packed_string(name) + struct.pack("<I", len(shape)))
                f.write(b"".join(struct.pack("<Q", n) for n in reversed(shape)))
                f.write(struct.pack("<IQ", quants.TYPES[type_name].number, offset))
                size = quants.n_bytes(type_name, int(np.prod(shape)))
                offset += -(-size // ALIGN) * ALIGN
            f.write(b"\0" * (-f.tell() % ALIGN))
            for name, shape, type_name, data in self.tensors:
                raw = data() if callable(data) else data
                if len(raw) != quants.n_bytes(type_name, int(np.prod(shape))):
                    raise ValueError(f"{name}: {len(raw)} bytes do not fit shape and type")
                f.write(raw)
                f.write(b"\0" * (-f.tell() % ALIGN))
