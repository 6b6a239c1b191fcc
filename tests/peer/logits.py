#!/usr/bin/python3
"""Logits against a double-precision evaluation, and against llama.cpp on the same files.

  logits.py PAL [--peer PEER | --no-peer] [--json FILE] [--only TEXT] [--tokens N] [--keep DIR]

For each architecture, weight type and feature a random model is made and run over random
tokens. The error of an engine is the RMS difference to tests/tools/oracle.py in units of the
logits' standard deviation. Bars:

  F32, F16, BF16 weights, f32 K/V    at most 1e-5
  F32, F16, BF16 weights, i16 K/V    at most 3e-4 (16 bits a value, the default)
  the same with f16 K/V              at most 3e-4, or what rounding K and V to half floats alone
                                     costs on that model (column "floor"; at most 2 % above it)
  the same with int8, affine4 K/V    what rounding K and V so alone costs on that model (the floors
                                     after their columns), at most 5 % above it
  other weights, i16 K/V             at most llama.cpp's error in the same run
  greedy, 64 tokens, F32 weights     llama.cpp's tokens

Greedy prompts are those where the oracle's best token leads by far more than either engine's
error, chosen without looking at PAL. The oracle itself is checked against llama.cpp too. PAL
"-": only that. Without a peer (none given, none built, and no ../shared/peer to build it
with) what needs it is listed as not run. Speaks TAP.
"""
import argparse
from concurrent.futures import ProcessPoolExecutor
import json
import os
from pathlib import Path
import platform
import subprocess
import sys
import tempfile

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "tools"))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one process a core is parallel enough

import numpy as np  # noqa: E402

import harness  # noqa: E402
import llamacpp  # noqa: E402
import mkmodel  # noqa: E402
import oracle  # noqa: E402
import quants  # noqa: E402
from mkmodel import Spec  # noqa: E402

SHARED = ROOT.parent / "shared"
EXACT_BAR, HALF_BAR, FLOOR_SLACK = 1e-5, 3e-4, 1.02
FEW_BITS, FEW_SLACK = ("int8", "affine4"), 1.05
COARSE_BAR = 0.1         # what no right reading of a quantised model exceeds
PEER_BAR = 1e-3          # between llama.cpp and the oracle with half-float K/V, F32 weights
LAYOUT_BAR = 1e-4        # the same where only the embedding is quantised
LEAD, GREEDY, PROMPT = 4e-3, 64, 32
PAIRS = (("pal f32", "pal_f32"), ("pal i16", "pal_i16"), ("pal f16", "pal_f16"),
         ("peer", "peer"), ("floor", "floor"), ("int8", "pal_int8"), ("floor", "floor_int8"),
         ("affine4", "pal_affine4"), ("floor", "floor_affine4"))


# --- the models ---


def cases():
    """(name, Spec or mkgguf.py's arguments, greedy too) of everything to measure."""
    out = []
    for arch in mkmodel.ARCHS:
        layers = 6 if arch == "gemma3" else 4
        for kind in (*quants.TYPES, "q4_k_m"):
            out.append((f"{arch} {kind}", Spec(arch=arch, layers=layers, type=kind),
                        kind == "f32"))
        for rope in mkmodel.ROPES[arch][1:]:
            out.append((f"{arch} f32 {rope}", Spec(arch=arch, layers=layers, rope=rope), True))
        out.append((f"{arch} f32 untied", Spec(arch=arch, layers=layers, tied=False), True))
    out.append(("llama f32 yarn attn_factor", Spec("llama", rope="yarn", attn_factor=1.25), True))
    out.append(("llama q8_0 llama3", Spec("llama", rope="llama3", type="q8_0"), False))
    out.append(("qwen3 q4_0 yarn", Spec(rope="yarn", type="q4_0"), False))
    out.append(("gemma3 f32 softcap", Spec("gemma3", layers=6, softcap=3.0), True))
    for seed, arch in enumerate(mkmodel.ARCHS * 3):
        kind = ("f32", "q4_k", "mixed")[seed // 4]
        out.append((f"{arch} {kind} odd {seed}", mkmodel.random_spec(seed, arch, kind), False))
    if (SHARED / "tools" / "mkgguf.py").exists():
        for arch in ("qwen3", "llama", "gemma3"):
            for kind in ("f32", "f16", "bf16", "q4_0", "q8_0", "q4_k", "q6_k", "q4_k_m"):
                layers = ["--layers", "6"] if arch == "gemma3" else []
                out.append((f"mkgguf {arch} {kind}", ["--arch", arch, "--type", kind, *layers],
                            kind == "f32"))
    return out


def make(path, spec):
    if isinstance(spec, Spec):
        mkmodel.write(path, spec)
    else:
        tool = SHARED / "tools" / "mkgguf.py"
        subprocess.run([sys.executable, str(tool), path, "--shape", "tiny", *spec], check=True)


# --- measuring, in worker processes: each function returns a plain dictionary ---


def engines(args, path, ids, exact):
    """{name: error} of pal and the peer for one model."""
    out = {}
    if args.pal != "-":
        for kv in ("f32", "i16", "f16", *FEW_BITS):
            raw = harness.run([args.pal, "logits", path, "-t", "2", "--kv-type", kv], ids)
            out["pal_" + kv] = oracle.error(harness.rows(raw, len(ids), "pal"), exact)
    if args.peer:  # one thread: its spinning threads stall each other on busy cores
        raw = harness.run([args.peer, "logits", path, "-t", "1"], ids)
        out["peer"] = oracle.error(harness.rows(raw, len(ids), "peer"), exact)
        out["peer_raw"] = raw
    return out


def greedy(args, path, model):
    """Compares 64 greedy tokens of pal with the peer's on the first decisive prompt."""
    for attempt in range(40):
        prompt = np.random.default_rng([attempt, 9]).integers(0, model.vocab, PROMPT)
        raw = harness.run([args.peer, "greedy", path, "-n", str(GREEDY), "-t", "1"], prompt)
        want = [int(x) for x in raw.split()]
        logits = model.logits(np.concatenate([prompt, want[:-1]]))[PROMPT - 1:]
        order = np.sort(logits, axis=1)
        lead = float((order[:, -1] - order[:, -2]).min() / np.std(logits))
        if lead >= LEAD:
            break
    else:
        raise harness.Failed("no decisive prompt in 40")
    result = {"lead": lead, "attempt": attempt,
              "oracle_agrees": logits.argmax(axis=1).tolist() == want}
    if args.pal != "-":
        got = [int(x) for x in harness.run([args.pal, "run", path, "--ids", "-n", str(GREEDY), "--temp",
                                            "0", "--ignore-eos", "-t", "2"], prompt).split()]
        same = next((i for i, (a, b) in enumerate(zip(got, want)) if a != b), min(len(got), len(want)))
        result |= {"equal": got == want, "same_tokens": same, "got_tokens": len(got)}
    return result


def measure(job):
    args, folder, index, (name, spec, with_greedy) = job
    path = os.path.join(folder, f"{index}.gguf")
    row = {"name": name, "spec": spec.text() if isinstance(spec, Spec) else "mkgguf.py "
           + " ".join(spec), "file": path}
    try:
        make(path, spec)
        model = oracle.Model(path)
        types = {t.type for t in model.tensors.values()}
        row["float"] = types <= set(quants.FLOATS)
        ids = np.random.default_rng(index).integers(0, model.vocab, args.tokens)
        exact = model.logits(ids)
        row |= engines(args, path, ids, exact)
        raw = row.pop("peer_raw", None)
        if row["float"]:
            half = oracle.Model(path, kv="f16").logits(ids)
            row["floor"] = oracle.error(half, exact)
            for kv in FEW_BITS:
                row["floor_" + kv] = oracle.error(oracle.Model(path, kv=kv).logits(ids), exact)
            if raw and types == {"f32"}:
                row["peer_to_half"] = oracle.error(harness.rows(raw, len(ids), "peer"), half)
        if with_greedy and args.peer:
            row["greedy"] = greedy(args, path, model)
    except (harness.Failed, subprocess.CalledProcessError, ValueError) as e:
        row["failed"] = str(e)
    if not args.keep and os.path.exists(path):
        os.unlink(path)
    return row


def layout(job):
    """The error of the peer where only the embedding has a block type: the peer dequantises
    its rows without any other loss, so this is the oracle's reading of the layout."""
    args, folder, kind = job
    path = os.path.join(folder, f"layout-{kind}.gguf")
    mkmodel.write(path, Spec(layers=1, embd=kind, output="f32", tied=False, seed=3))
    ids = np.random.default_rng(0).integers(0, 512, 100)
    raw = harness.run([args.peer, "logits", path, "-t", "1"], ids)
    want = oracle.Model(path, kv="f16").logits(ids)
    return oracle.error(harness.rows(raw, 100, "peer"), want)


# --- judging ---


def number(x):
    return f"{x:9.2e}" if x is not None else "        -"


def judge_pal(tap, row, no_peer):
    name = row["name"]
    exact, half, floor = row["pal_f32"], row["pal_f16"], row.get("floor")
    default = row["pal_i16"]
    again = f"{row['spec']} ({row['file']}; --keep DIR keeps it)"
    if row["float"]:
        tap.check(exact <= EXACT_BAR, f"{name}: f32 K/V {exact:.2e} <= {EXACT_BAR:.0e}", again)
        tap.check(default <= HALF_BAR, f"{name}: i16 K/V {default:.2e} <= {HALF_BAR:.0e}", again)
        bar = max(HALF_BAR, floor * FLOOR_SLACK)
        what = f"{HALF_BAR:.0e}" if bar == HALF_BAR else f"rounding K/V alone, {floor:.2e} + 2 %"
        tap.check(half <= bar, f"{name}: f16 K/V {half:.2e} <= {what}", again)
        for kv in FEW_BITS:
            got, least = row["pal_" + kv], row["floor_" + kv]
            tap.check(got <= least * FEW_SLACK,
                      f"{name}: {kv} K/V {got:.2e} <= rounding K/V alone, {least:.2e} + 5 %", again)
    elif no_peer:
        tap.check(default <= COARSE_BAR, f"{name}: error {default:.2e} <= {COARSE_BAR}", again)
        tap.skip(f"{name}: no worse than llama.cpp", no_peer)
    else:
        peer = row["peer"]
        tap.check(default <= peer, f"{name}: error {default:.2e} <= llama.cpp's {peer:.2e}", again)
    g = row.get("greedy")
    if g:
        tap.check(g["equal"], f"{name}: {GREEDY} greedy tokens equal llama.cpp's",
                  f"prompt {g['attempt']}: {g.get('same_tokens')} of {GREEDY} equal, "
                  f"{g.get('got_tokens')} given; smallest lead {g['lead']:.1e}")


def judge_oracle(tap, row):
    """The oracle against llama.cpp, where llama.cpp's own error is small."""
    name = row["name"]
    if "peer_to_half" in row:
        tap.check(row["peer_to_half"] <= PEER_BAR,
                  f"{name}: oracle and llama.cpp agree, {row['peer_to_half']:.1e} <= {PEER_BAR:.0e}")
    elif "peer" in row and not row["float"]:
        tap.check(row["peer"] <= COARSE_BAR,
                  f"{name}: oracle and llama.cpp agree, {row['peer']:.1e} <= {COARSE_BAR}")
    if "greedy" in row:
        tap.check(row["greedy"]["oracle_agrees"], f"{name}: oracle and llama.cpp choose alike")


def show(tap, rows):
    tap.note("RMS error in units of the logits' standard deviation")
    tap.note(f"{'model':<28}" + "".join(f"{title:>10}" for title, _ in PAIRS) + "   pal/peer")
    for row in rows:
        if "failed" in row:
            tap.note(f"{row['name']:<28} failed")
            continue
        pal, peer = row.get("pal_i16"), row.get("peer")
        ratio = f"{pal / peer:11.3f}" if pal is not None and peer else ""
        tap.note(f"{row['name']:<28}" + "".join(" " + number(row.get(key)) for _, key in PAIRS) + ratio)


def evidence(args, rows):
    version = subprocess.run([args.pal, "--version"], capture_output=True, text=True,
                             check=False).stdout.strip() if args.pal != "-" else ""
    return {"test": "peer/logits", "pal": version, "peer": bool(args.peer),
            "machine": {"system": platform.platform(), "cores": harness.cores()},
            "tokens": args.tokens, "bars": {"exact": EXACT_BAR, "half": HALF_BAR,
                                            "floor_slack": FLOOR_SLACK}, "models": rows}


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("pal", help="the program under test, or - for the oracle alone")
    ap.add_argument("--peer", help="the llama.cpp driver")
    ap.add_argument("--no-peer", action="store_true")
    ap.add_argument("--json", metavar="FILE", help="write all figures there")
    ap.add_argument("--only", default="", metavar="TEXT", help="models whose name contains TEXT")
    ap.add_argument("--tokens", type=int, default=400)
    ap.add_argument("--keep", metavar="DIR", help="leave the models there")
    args = ap.parse_args()
    args.peer, why = (None, "--no-peer") if args.no_peer else llamacpp.find_peer(args.peer)
    tap = harness.Tap()
    if why:
        tap.note(f"not compared with llama.cpp: {why}")
    with tempfile.TemporaryDirectory() as folder, \
            ProcessPoolExecutor(min(2, harness.cores())) as pool:
        if args.keep:
            folder = args.keep
            os.makedirs(folder, exist_ok=True)
        # numbered before the choice: a model's tokens do not depend on --only
        todo = [(args, folder, i, c) for i, c in enumerate(cases()) if args.only in c[0]]
        rows = []
        for row in pool.map(measure, todo):
            rows.append(row)
            if "failed" in row:
                tap.check(False, f"{row['name']}: runs", f"{row['spec']}\n{row['failed']}")
                continue
            judge_oracle(tap, row)
            if args.pal != "-":
                judge_pal(tap, row, why)
        kinds = [k for k in quants.TYPES if k not in quants.FLOATS]
        if args.peer and not args.only:
            for kind, e in zip(kinds, pool.map(layout, [(args, folder, k) for k in kinds])):
                tap.check(e <= LAYOUT_BAR, f"layout of {kind}: as llama.cpp reads it, {e:.1e}")
        elif why:
            tap.skip("layouts and greedy continuations", why)
    show(tap, rows)
    if args.json:
        Path(args.json).write_text(json.dumps(evidence(args, rows), indent=1) + "\n")
    tap.finish()


if __name__ == "__main__":
    main()
