#!/usr/bin/python3
"""Texts drawn at random under random schemas are JSON, and satisfy them, as TAP.

  schemas.py SCHEMAS MODEL [--rounds N] [--seed S]

SCHEMAS: the program of schemas.c. The judge is a validator of its own, below, written from the
specification and not from the engine. A schema that is refused must be refused as one that nothing
satisfies, or for what is documented; most must not be.
"""
import argparse
import json
from pathlib import Path
import random
import re
import subprocess
import sys

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "tools"))

import harness  # noqa: E402

KEYS = ("a", "ab", "b", "name", "é", "x y", "q\"", "")
PATTERNS = (r"^[a-c]{2,4}$", r"^\d{3}-\d+", r"^(foo|ba[rz])*$", r"[A-Z]\.$", r"^\w+\s?[^a-m]$")
VALUES = (None, True, 0, -3, 2.5, "a", "é\n", [1, []], {"k": "v"}, "")


class Maker:
    """Random schemas."""

    def __init__(self, seed):
        self.r = random.Random(seed)
        self.defs = {f"d{i}": None for i in range(self.r.randrange(3))}

    def root(self):
        schema = self.schema(0)
        for name in self.defs:
            self.defs[name] = self.schema(1)
        if self.defs:
            if not isinstance(schema, dict):
                schema = {"allOf": [schema]}
            schema["$defs"] = self.defs
        return schema

    def bounds(self, low, high, most):
        a, b = sorted(self.r.randrange(most) for _ in range(2))
        return {k: v for k, v in ((low, a), (high, b)) if self.r.random() < 0.6}

    def schema(self, depth):
        r = self.r
        kinds = ["string", "integer", "number", "boolean", "null", "enum", "pattern", "any"]
        if depth < 4:
            kinds += ["object", "array", "anyOf", "allOf", "tuple"] * 2
        if self.defs:
            kinds += ["$ref"] * 2
        return getattr(self, "make_" + r.choice(kinds).replace("$", ""))(depth)

    def make_string(self, _):
        return {"type": "string", **self.bounds("minLength", "maxLength", 12)}

    def make_pattern(self, _):
        return {"type": "string", "pattern": self.r.choice(PATTERNS),
                **({"maxLength": self.r.randrange(5, 30)} if self.r.random() < 0.3 else {})}

    def limits(self):
        out = {}
        low = self.r.randrange(-200, 200)
        if self.r.random() < 0.5:
            out[self.r.choice(("minimum", "exclusiveMinimum"))] = low
        if self.r.random() < 0.5:
            out[self.r.choice(("maximum", "exclusiveMaximum"))] = low + self.r.randrange(1, 2000)
        return out

    def make_integer(self, _):
        return {"type": "integer", **self.limits()}

    def make_number(self, _):
        return {"type": "number", **self.limits()}

    def make_boolean(self, _):
        return {"type": ["boolean", "null"][:self.r.randrange(1, 3)]}

    def make_null(self, _):
        return {"type": "null"}

    def make_enum(self, _):
        if self.r.random() < 0.3:
            return {"const": self.r.choice(VALUES)}
        return {"enum": self.r.sample(VALUES, self.r.randrange(1, 5))}

    def make_any(self, _):
        return self.r.choice((True, {}, {"description": "anything"}))

    def make_object(self, depth):
        keys = self.r.sample(KEYS, self.r.randrange(0, 5))
        out = {"type": "object", "properties": {k: self.schema(depth + 1) for k in keys}}
        out["required"] = [k for k in keys if self.r.random() < 0.5]
        if self.r.random() < 0.4:
            out["additionalProperties"] = self.r.choice((False, True, self.schema(depth + 1)))
        return out

    def make_array(self, depth):
        return {"type": "array", "items": self.schema(depth + 1),
                **self.bounds("minItems", "maxItems", 5)}

    def make_tuple(self, depth):
        out = {"type": "array", "prefixItems": [self.schema(depth + 1) for _ in range(2)]}
        if self.r.random() < 0.5:
            out["items"] = self.schema(depth + 1)
        return {**out, **self.bounds("minItems", "maxItems", 5)}

    def make_anyOf(self, depth):
        return {"anyOf": [self.schema(depth + 1) for _ in range(self.r.randrange(1, 4))]}

    def make_allOf(self, depth):
        return {"allOf": [self.make_object(depth + 1) for _ in range(2)]}

    def make_ref(self, _):
        return {"$ref": "#/$defs/" + self.r.choice(list(self.defs))}


def same(a, b):
    """JSON's equality: true is not 1."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    return a == b


def is_type(v, name):
    if name in ("integer", "number"):
        number = isinstance(v, (int, float)) and not isinstance(v, bool)
        return number and (name == "number" or v == int(v))
    return isinstance(v, {"null": type(None), "boolean": bool, "string": str, "array": list,
                          "object": dict}[name])


def satisfies(v, s, root, within=()):
    """Whether the value v satisfies schema s; within: schemas of the same value that ask. One that
    asks itself is not satisfied."""
    if isinstance(s, bool):
        return s
    if any(s is x for x in within):
        return False
    within += (s,)
    if "$ref" in s and not satisfies(v, root["$defs"][s["$ref"].split("/")[-1]], root, within):
        return False
    types = s.get("type", [])
    types = [types] if isinstance(types, str) else types
    if types and not any(is_type(v, t) for t in types):
        return False
    if "enum" in s and not any(same(v, x) for x in s["enum"]):
        return False
    if "const" in s and not same(v, s["const"]):
        return False
    if not all(satisfies(v, x, root, within) for x in s.get("allOf", [])):
        return False
    if "anyOf" in s and not any(satisfies(v, x, root, within) for x in s["anyOf"]):
        return False
    if isinstance(v, str):
        if not s.get("minLength", 0) <= len(v) <= s.get("maxLength", len(v)):
            return False
        return "pattern" not in s or bool(re.search(s["pattern"].replace("$", r"\Z"), v))
    if is_type(v, "number"):
        return (v >= s.get("minimum", v) and v <= s.get("maximum", v) and
                ("exclusiveMinimum" not in s or v > s["exclusiveMinimum"]) and
                ("exclusiveMaximum" not in s or v < s["exclusiveMaximum"]))
    if isinstance(v, list):
        prefix = s.get("prefixItems", [])
        return (s.get("minItems", 0) <= len(v) <= s.get("maxItems", len(v)) and
                all(satisfies(x, y, root) for x, y in zip(v, prefix)) and
                all(satisfies(x, s.get("items", True), root) for x in v[len(prefix):]))
    if isinstance(v, dict):
        properties = s.get("properties", {})
        return (all(k in v for k in s.get("required", [])) and
                all(satisfies(x, properties.get(k, s.get("additionalProperties", True)), root)
                    for k, x in v.items()))
    return True


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("program")
    ap.add_argument("model")
    ap.add_argument("--rounds", type=int, default=400)
    ap.add_argument("--seed", type=int, default=1)
    args = ap.parse_args()
    tap = harness.Tap()
    schemas = [Maker(args.seed + i).root() for i in range(args.rounds)]
    lines = [f"{args.seed + i} {json.dumps(s)}\n" for i, s in enumerate(schemas)]
    p = subprocess.run([args.program, args.model], input="".join(lines).encode(),
                       capture_output=True, check=False)
    tap.check(p.returncode == 0, "no text is left without a way to its end",
              p.stderr.decode()[-500:])
    wrong, refused, whole = [], [], 0
    for i, (schema, line) in enumerate(zip(schemas, p.stdout.decode().split("\n"))):
        got = json.loads(line)
        if "error" in got:
            if not re.search("nothing satisfies|enumeration|two patterns", got["error"]):
                wrong.append(f"seed {args.seed + i}: {got['error']}: {json.dumps(schema)}")
            refused.append(got["error"])
            continue
        if not got["whole"]:
            continue
        whole += 1
        try:
            good = satisfies(json.loads(got["text"]), schema, schema)
        except ValueError:
            good = False
        if not good:
            wrong.append(f"seed {args.seed + i}: {got['text']} is no {json.dumps(schema)}")
    tap.check(not wrong, "every text is JSON of its schema", "\n".join(wrong[:5]))
    tap.check(whole >= 0.6 * args.rounds, "most schemas are taken, and their texts end",
              f"{whole} of {args.rounds}; refused: {refused[:5]}")
    tap.finish()


if __name__ == "__main__":
    main()
