"""Decoding in a session whose K/V is bounded: at any depth as fast as at none, while llama.cpp's,
which keeps everything, slows down. And what it takes to bring chunks back, by each source, beside
reading as many tokens.

A pair is one session of pal's that grows from depth to depth, a short one for each source, and
llama.cpp at the depths of PEER_DEPTHS.
"""
import json

import machine
from machine import spread

SINK, SLOTS, SLOT = 4, 8, 48        # positions: of a slot, a chunk of 32 and its margins
DEPTHS, PEER_DEPTHS = (2048, 8192, 16384, 65536), (8192, 16384)
FILL_DEPTH, FILL_TOKENS = 8192, 1024  # tokens: of the log, and those that a prefill of 8 x 128 has
SOURCES = ("recompute", "spill", "project")
DECODE = 64


def kv_options(budget):
    return ["--kv", "restored", "--sink", str(SINK), "--restored", str(SLOTS), "--window",
            str(budget - SINK - SLOTS * SLOT)]


def commands(under, pal, peer, path, side, budget, threads):
    """{what is measured: its command}"""
    pal = [*under, pal, "bench", path, "-t", str(threads), "--verify", "1", "--json", "--quiet",
           *kv_options(budget), *(["--side", side] if side else [])]
    out = {"deep": [*pal, "-p", "512", "-n", str(DECODE), "--restore", "spill", "--depths",
                    ",".join(map(str, DEPTHS))]}
    for source in SOURCES if side else SOURCES[:2]:
        out[source] = [*pal, "-p", str(FILL_TOKENS), "-n", "4", "--restore", source, "--depths",
                       str(FILL_DEPTH)]
    for depth in PEER_DEPTHS if peer else ():
        out[f"peer {depth}"] = [*under, peer, "bench", path, "-p", str(depth), "-n", str(DECODE),
                                "-t", str(threads)]
    return out


def measure(command, timeout):
    text, around = machine.run(command, timeout)
    try:
        sample = json.loads(text)
        sample["decode_tok_s"] + 1
    except (ValueError, KeyError, TypeError) as e:
        raise machine.Failed(f"{' '.join(command)}: no figures in: {text[:200]!r}") from e
    for place in ("model", "machine", "build"):  # the series has them
        sample.pop(place, None)
    return {**sample, "around": around}


def figures(pair):
    """{name: value} of one pair, ratios included."""
    deep = {d["depth"]: d for d in pair["deep"]["depths"]}
    out = {f"decode at {n}": deep[n]["decode_tok_s"] for n in DEPTHS}
    out["deepest / shallowest"] = out[f"decode at {DEPTHS[-1]}"] / out[f"decode at {DEPTHS[0]}"]
    for depth in PEER_DEPTHS:
        if f"peer {depth}" in pair:
            theirs = pair[f"peer {depth}"]["decode_tok_s"]
            out[f"llama.cpp at {depth}"] = theirs
            out[f"ratio at {depth}"] = out[f"decode at {depth}"] / theirs
    for source in SOURCES:
        if source in pair:
            s = pair[source]
            out[f"{source}: fill, ms"] = 1e3 * s["depths"][0]["fill_s"]
            out[f"{source}: prefill of {FILL_TOKENS}, ms"] = 1e3 * FILL_TOKENS / s["prefill_tok_s"]
    prefill = out[f"recompute: prefill of {FILL_TOKENS}, ms"]
    for source in ("recompute", "project"):
        if source in pair:
            out[f"{source} / prefill"] = out[f"{source}: fill, ms"] / prefill
    return out


def bars(median):
    """What is asked of the 0.6b shape and 2048 positions: [{what, least or most, value, met}]"""
    wanted = [("deepest / shallowest", "least", 0.95), ("ratio at 8192", "least", 4.0),
              ("spill: fill, ms", "most", 60.0), ("recompute / prefill", "most", 1.0),
              ("project / prefill", "most", 0.7)]
    return [{"what": what, limit: bar, "value": median[what],
             "met": median[what] >= bar if limit == "least" else median[what] <= bar}
            for what, limit, bar in wanted if what in median]


def print_pair(i, pair):
    found = figures(pair)
    print(f"  pair {i}  " + ", ".join(f"{k} {v:.4g}" for k, v in found.items()), flush=True)


def series(args, under, peer, name, path, side, timeout):
    """Pairs of one model: what was run, the pairs, the summary."""
    todo = commands(under, args.pal, peer, path, side, args.bounded, args.threads)
    print(f"\n{name}, K/V of {args.bounded} positions, {args.threads} threads"
          f"{'' if peer else '; pal alone'}", flush=True)
    pairs = []
    while len(pairs) < args.pairs:
        order = list(todo) if len(pairs) % 2 == 0 else list(todo)[::-1]
        pair = {"order": order}
        for what in order:
            pair[what] = measure(todo[what], timeout)
        pairs.append(pair)
        print_pair(len(pairs), pair)
    each = [figures(p) for p in pairs]
    summary = {k: spread([e[k] for e in each]) for k in each[0]}
    print("  medians (and the spread of the pairs)")
    for k, v in summary.items():
        print(f"  {k:36}{v['median']:.4g} ({v['min']:.4g} to {v['max']:.4g})", flush=True)
    found = bars({k: v["median"] for k, v in summary.items()})
    return {"budget_positions": args.bounded,
            "commands": {k: machine.public(c) for k, c in todo.items()}, "pairs": pairs,
            "summary": {**summary, "bars": found}}
