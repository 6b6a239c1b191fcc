"""Drafting in replay (`pal map --replay`) beside llama.cpp's plain decoding, on models that are too
large to have trained weights here.

A pair is, for each transcript of bench/workloads, one map of it, in which plain decoding and two
drafters take turns, and llama.cpp's decoding at the transcript's middle. The drafters are `mix`,
which knows the transcript so far and nothing else, and the same with a corpus of
bench/workloads/earlier: what an agent has written in sessions before this one, on other projects.
"""
import hashlib
import json
import os
from pathlib import Path
import tempfile

import machine
from machine import spread

ROOT = Path(__file__).resolve().parents[1]
WORKLOADS = ROOT / "bench" / "workloads"
TOKENIZER = ROOT / "models" / "palimpsest-5m.gguf"
EARLIER = WORKLOADS / "earlier"
CORPUS = "earlier.corpus"
DRAFTS, DECODE = {"pal": "mix", "earlier": f"mix:ngram,suffix:{CORPUS}"}, 64
ARMS = {"pal": "", "earlier": ", earlier sessions known"}
# What issue 5 asks: times plain decoding, and times llama.cpp's.
SPEEDUP = {"agent": 2.5, "edit": 2.5, "quote": 2.0, "chat": 0.98, "prose": 0.98}
OF_PEER = {"agent": 3.0, "edit": 3.0, "quote": 3.0}


def names():
    return sorted(path.stem for path in WORKLOADS.glob("*.txt"))


def corpus_command(pal):
    texts = sorted(EARLIER.glob("*.txt"))
    return [pal, "corpus", str(TOKENIZER), "--special", "--quiet", "-o", CORPUS,
            *(x for path in texts for x in ("-f", str(path)))]


def map_command(under, pal, path, name, args):
    drafts = [x for draft in DRAFTS.values() for x in ("--draft", draft)]
    return [*under, pal, "map", path, "--replay", "--tokenizer", str(TOKENIZER), "--workloads",
            str(WORKLOADS), "--workload", name, *drafts, "--pairs", "1", "-n",
            str(args.replay), *(["--turns", str(args.turns)] if args.turns else []), "-t",
            str(args.threads), "--json", "--quiet"]


def middle(workload):
    """Tokens before the middle of what is replayed."""
    return max(1, (workload["given"] + sum(map(int, workload["replies"].split()))) // 2)


def measure_map(command, timeout):
    """Of each drafter its figures; the runs are with those of the first."""
    text, around = machine.run(command, timeout)
    try:
        found = json.loads(text)
        (workload,) = found["parameters"]["workloads"]
        each = dict(zip(DRAFTS, found["figures"], strict=True))
        for figure in each.values():
            figure["tok_s"] + figure["speedup"]
    except (ValueError, KeyError, TypeError) as e:
        raise machine.Failed(f"{' '.join(command)}: no figures in: {text[:200]!r}") from e
    each["pal"] |= {"runs": found["runs"], "depth": middle(workload), "around": around}
    return each


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
    pair = {"order": ["pal"], **ours}
    if peer:
        depth = pair["pal"]["depth"]
        pair["order"].append("peer")
        pair["peer"] = measure_peer([*under, peer, "bench", path, "-p", str(depth), "-n",
                                     str(DECODE), "-t", str(args.threads)], timeout)
    return pair


def figures(pair):
    """{name: value} of one pair."""
    out = {}
    if "peer" in pair:
        out["llama.cpp"] = pair["peer"]["decode_tok_s"]
    for arm, more in ARMS.items():
        p = pair[arm]
        out |= {key + more: p[key] for key in ("speedup", "acceptance", "tokens_per_forward",
                                               "plain_tok_s", "tok_s")}
        if "peer" in pair:
            out["of llama.cpp" + more] = p["tok_s"] / out["llama.cpp"]
    return out


def bars(name, median):
    wanted = [("times plain", SPEEDUP, "speedup"), ("times llama.cpp", OF_PEER, "of llama.cpp")]
    return [{"what": f"{name}, {what}{more}", "least": bar[name], "value": median[key + more],
             "met": median[key + more] >= bar[name]}
            for more in ARMS.values() for what, bar, key in wanted
            if name in bar and key + more in median]


def print_pair(name, i, pair):
    text = ", ".join(f"{k} {v:.4g}" for k, v in figures(pair).items())
    print(f"  {name}, pair {i}  {text}, at {pair['pal']['depth']} tokens", flush=True)


def make_corpus(pal, timeout):
    """In the working folder. What it was made of, and how."""
    command = corpus_command(pal)
    machine.run(command, timeout)
    texts = {Path(p).name: hashlib.sha256(Path(p).read_bytes()).hexdigest()
             for p in command if p.endswith(".txt")}
    return {"command": machine.public(command), "texts_sha256": texts}


def series(args, under, peer, label, path, timeout):
    """Pairs of one model and all workloads: what was run, the pairs, the summary."""
    args.pal, path = os.path.abspath(args.pal), os.path.abspath(path)
    before = os.getcwd()
    # The corpus is named in the evidence: a name without a folder is nobody's path.
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            return run_series(args, under, peer, label, path, timeout)
        finally:
            os.chdir(before)


def run_series(args, under, peer, label, path, timeout):
    corpus = make_corpus(args.pal, timeout)
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
    return {"commands": commands, "corpus": corpus, "pairs": pairs,
            "summary": {**summary, "bars": found}}
