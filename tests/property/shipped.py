#!/usr/bin/python3
"""Drafting changes no token of the shipped pair (contract C3), as TAP.

  shipped.py PAL MODEL DRAFTER WORKLOADS [--tokens N] [--workload NAME]...

Each workload's prompts are answered freely by `pal map`, greedily and sampled, with other seeds,
temperatures and K/V policies in turn, until each source of drafts has generated N tokens
(default 10,000); every one of them is compared with that of plain decoding. DRAFTER: the model of
the source `model`.
"""
import argparse
from collections import Counter
import json
from pathlib import Path
import subprocess
import sys

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "tools"))

import harness  # noqa: E402

TEMPERATURES = ("0.8", "0.3", "1.2", "0.5")
POLICIES = (("full",), ("restored", "--restored", "2"), ("window",))


def play(args, workload, sources, seed):
    """The figures of one run of every source."""
    draft = [x for s in sources for x in ("--draft", s)]
    kv = POLICIES[seed % len(POLICIES)]
    p = subprocess.run([args.pal, "map", args.model, "--json", "-q", "--workloads", args.workloads,
                        "--workload", workload, "--pairs", "1", "--ignore-eos", "--seed", str(seed),
                        "--temp", TEMPERATURES[seed % len(TEMPERATURES)], "--kv", *kv, *draft],
                       capture_output=True, check=False)
    # 1: tokens differ; the figures say so, too.
    if not p.stdout:
        sys.exit(f"pal map: {p.stderr.decode()}")
    return json.loads(p.stdout)["figures"]


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("pal")
    ap.add_argument("model")
    ap.add_argument("drafter")
    ap.add_argument("workloads")
    ap.add_argument("--tokens", type=int, default=10000)
    ap.add_argument("--workload", action="append", help="one of them only; can be given again")
    args = ap.parse_args()
    sources = ("ngram", "suffix", "exit:2", "auto", f"model:{args.drafter}",
               f"mix:ngram,suffix,exit:2,model:{args.drafter}")
    tap = harness.Tap()
    for workload in args.workload or sorted(p.stem for p in Path(args.workloads).glob("*.txt")):
        sums = {s: Counter() for s in sources}
        seed = 0
        while min(c["tokens"] for c in sums.values()) < args.tokens:
            for f in play(args, workload, sources, seed):
                if f["mode"] == "greedy" and seed >= len(POLICIES):
                    continue  # the same as before
                for key in ("tokens", "drafted", "accepted", "differing"):
                    sums[f["drafter"]][key] += f[key]
            seed += 1
        for source, c in sums.items():
            name = (f"{workload}, {source.replace(args.drafter, Path(args.drafter).name)}: "
                    f"{c['tokens']} tokens, {c['accepted']} of {c['drafted']} drafted ones came, "
                    f"{c['differing']} replies differ")
            tap.check(c["differing"] == 0 and c["drafted"] > 0, name)
    tap.finish()


if __name__ == "__main__":
    main()
