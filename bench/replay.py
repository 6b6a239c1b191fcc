"""Drafting in replay (`pal map --replay`) beside llama.cpp's plain decoding, on models that are too
large to have trained weights here.

A pair is, for each transcript of bench/workloads, one map of it with `--draft mix`, in which plain
and drafted decoding take turns, and llama.cpp's decoding at the transcript's middle.
"""
import json
from pathlib import Path

import machine
from machine import spread

ROOT = Path(__file__).resolve().parents[1]
WORKLOADS = ROOT / "bench" / "workloads"
TOKENIZER = ROOT / "models" / "palimpsest-5m.gguf"
DRAFT, DECODE = "mix", 64
# What issue 5 asks: times plain decoding, and times llama.cpp's.
SPEEDUP = {"agent": 2.5, "edit": 2.5, "quote": 2.0, "chat": 0.98, "prose": 0.98}
OF_PEER = {"agent": 3.0, "edit": 3.0, "quote": 3.0}


def names():
    return sorted(path.stem for path in WORKLOADS.glob("*.txt"))


def map_command(under, pal, path, name, args):
    return [*under, pal, "map", path, "--replay", "--tokenizer", str(TOKENIZER), "--workloads",
            str(WORKLOADS), "--workload", name, "--draft", DRAFT, "--pairs", "1", "-n",
            str(args.replay), *(["--turns", str(args.turns)] if args.turns else []), "-t",
            str(args.threads), "--json", "--quiet"]


def middle(workload):
    """Tokens before the middle of what is replayed."""
    return max(1, (workload["given"] + sum(map(int, workload["replies"].split()))) // 2)


def measure_map(command, timeout):
    text, around = machine.run(command, timeout)
    try:
        found = json.loads(text)
        (figure,), (workload,) = found["figures"], found["parameters"]["workloads"]
        figure["tok_s"] + figure["speedup"]
    except (ValueError, KeyError, TypeError) as e:
        raise machine.Failed(f"{' '.join(command)}: no figures in: {text[:200]!r}") from e
    return {**figure, "runs": found["runs"], "depth": middle(workload), "around": around}


def measure_peer(command, timeout):
    text, around = machine.run(command, timeout)
    try:
        sample = json.loads(text)
        sample["decode_tok_s"] + 1
    except (ValueError, KeyError, TypeError) as e:
        raise machine.Failed(f"{' '.join(command)}: no figures in: {text[:200]!r}") from e
    return {**sample, "around": around}


def one_pair(under, peer, path, name, args, timeout):
    ours = measure_map(map_command(under, args.pal, path, name, args), timeout)
    pair = {"order": ["pal"], "pal": ours}
    if peer:
        pair["order"].append("peer")
        pair["peer"] = measure_peer([*under, peer, "bench", path, "-p", str(ours["depth"]), "-n",
                                     str(DECODE), "-t", str(args.threads)], timeout)
    return pair


def figures(pair):
    """{name: value} of one pair."""
    p = pair["pal"]
    out = {key: p[key] for key in ("speedup", "acceptance", "tokens_per_forward", "plain_tok_s",
                                   "tok_s")}
    if "peer" in pair:
        out["llama.cpp"] = pair["peer"]["decode_tok_s"]
        out["of llama.cpp"] = p["tok_s"] / out["llama.cpp"]
    return out


def bars(name, median):
    wanted = [("times plain", SPEEDUP, "speedup"), ("times llama.cpp", OF_PEER, "of llama.cpp")]
    return [{"what": f"{name}, {what}", "least": bar[name], "value": median[key],
             "met": median[key] >= bar[name]}
            for what, bar, key in wanted if name in bar and key in median]


def print_pair(name, i, pair):
    text = ", ".join(f"{k} {v:.4g}" for k, v in figures(pair).items())
    print(f"  {name}, pair {i}  {text}, at {pair['pal']['depth']} tokens", flush=True)


def series(args, under, peer, label, path, timeout):
    """Pairs of one model and all workloads: what was run, the pairs, the summary."""
    print(f"\n{label}, replay of {args.replay} tokens a reply, {args.threads} threads"
          f"{'' if peer else '; pal alone'}", flush=True)
    pairs = {name: [] for name in names()}
    for i in range(args.pairs):
        for name in pairs if i % 2 == 0 else reversed(pairs):
            pairs[name].append(one_pair(under, peer, path, name, args, timeout))
            print_pair(name, i + 1, pairs[name][-1])
    summary, found = {}, []
    for name, of in pairs.items():
        each = [figures(p) for p in of]
        summary[name] = {k: spread([e[k] for e in each]) for k in each[0]}
        found += bars(name, {k: v["median"] for k, v in summary[name].items()})
    commands = {name: machine.public(map_command(under, args.pal, path, name, args))
                for name in pairs}
    return {"commands": commands, "pairs": pairs, "summary": {**summary, "bars": found}}
