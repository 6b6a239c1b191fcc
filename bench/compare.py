#!/usr/bin/env python3
"""Speed of pal and of llama.cpp on the same files, in turns.

  compare.py PAL [--peer PEER] [--rounds N] [-t THREADS] [-p N] [-n N] [--json FILE] MODEL...

MODEL: GGUF files, or TYPE@SHAPE for a random model made on the spot (q8_0@0.6b: the shapes
and types of tests/tools/mkmodel.py).
"""
import argparse
import json
import os
from pathlib import Path
import statistics
import subprocess
import sys
import tempfile

ROOT = Path(__file__).resolve().parents[1]


def measure(program, model, args):
    command = [program, "bench", model, "-p", str(args.prefill), "-n", str(args.decode),
               "-t", str(args.threads)]
    if program == args.pal:
        command += ["--json", "--quiet"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def figures(sample):
    """What is compared: (name, value, whether more is better)."""
    yield "prefill tok/s", sample["prefill_tok_s"], True
    yield "decode tok/s", sample["decode_tok_s"], True
    for n, ms in sample["verify_ms"].items():
        yield f"verify({n}) ms", ms, False
    if "rss_bytes" in sample:
        yield "peak memory MB", sample["rss_bytes"] / 1e6, False


def column(samples):
    """name -> (median, spread as text, whether more is better)"""
    values = {}
    for sample in samples:
        for name, value, more in figures(sample):
            values.setdefault(name, ([], more))[0].append(value)
    return {name: (statistics.median(v), f"{min(v):.4g} to {max(v):.4g}", more)
            for name, (v, more) in values.items()}


def table(model, ours, theirs):
    print(f"\n{os.path.basename(model)}")
    print(f"  {'':15}{'pal':>10}  {'rounds':20}" +
          (f"{'llama.cpp':>10}  {'rounds':20}{'pal is':>8}" if theirs else ""))
    for name, (value, spread, more) in ours.items():
        line = f"  {name:15}{value:10.4g}  {spread:20}"
        if name in theirs:
            other, other_spread, _ = theirs[name]
            ratio = value / other if more else other / value
            line += f"{other:10.4g}  {other_spread:20}{ratio:7.2f}x"
        print(line)
    sys.stdout.flush()


def make(name, folder):
    """The path of a model that is given, or made from TYPE@SHAPE."""
    if "@" not in name or os.path.exists(name):
        return name
    kind, shape = name.split("@", 1)
    path = os.path.join(folder, f"{shape}-{kind}.gguf")
    subprocess.run([sys.executable, str(ROOT / "tests/tools/mkmodel.py"), path, "--shape", shape,
                    "--type", kind], check=True, stdout=subprocess.DEVNULL)
    return path


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("pal")
    ap.add_argument("models", nargs="+", metavar="MODEL")
    built = Path(os.environ.get("PAL_PEER_DIR", Path.home() / ".cache" / "peer")) / "peer"
    ap.add_argument("--peer", default=str(built) if built.exists() else None)
    ap.add_argument("--rounds", type=int, default=3)
    ap.add_argument("-t", "--threads", type=int, default=len(os.sched_getaffinity(0)))
    ap.add_argument("-p", "--prefill", type=int, default=512)
    ap.add_argument("-n", "--decode", type=int, default=64)
    ap.add_argument("--json", metavar="FILE")
    args = ap.parse_args()
    args.pal = os.path.abspath(args.pal)
    if not args.peer:
        print("llama.cpp is not measured: it is not built (../shared/peer/setup.sh builds it)")
    kept = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in args.models:
            model, samples = make(name, folder), {"pal": [], "peer": []}
            for _ in range(args.rounds):
                samples["pal"].append(measure(args.pal, model, args))
                if args.peer:
                    samples["peer"].append(measure(args.peer, model, args))
            table(model, column(samples["pal"]), column(samples["peer"]))
            kept[name] = samples
            if model != name:
                os.remove(model)
    if args.json:
        Path(args.json).write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
