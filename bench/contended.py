"""Decoding where the cores are wanted by others: beside busy loops, one for each core, and with
four times as many threads as cores. What counts is each engine's speed over its own when idle,
within a pair. The busy loops are ours, so their CPU time is not noise.

pal is measured by `pal bench`. llama.cpp's driver prints figures only when all is done, which
may be never here; so it decodes greedily, and its lines are timed, up to a limit.
"""
import contextlib
import json
import os
import subprocess
import sys

import machine
from machine import spread

BARS = {"beside": 0.35, "crowded": 0.70}  # of the idle speed, at least
CROWD = 4  # times as many threads as cores
PROMPT = "300 8219 16138 24057"


@contextlib.contextmanager
def busy_loops(n):
    """Process ids of n programs that never sleep."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(n)]
    try:
        yield [loop.pid for loop in loops]
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def conditions(threads):
    """{name: (busy loops, threads)}"""
    cores = len(os.sched_getaffinity(0))
    return {"idle": (0, threads), "beside": (cores, threads), "crowded": (0, CROWD * cores)}


def most_threads():
    """That want to run at a time, ours all."""
    return (CROWD + 1) * len(os.sched_getaffinity(0))


def commands(under, pal, peer, path, n, threads):
    out = {"pal": [*under, pal, "bench", path, "-p", "16", "-n", str(n), "-t", str(threads),
                   "--verify", "1", "--json", "--quiet"]}
    if peer:
        out["peer"] = [*under, peer, "greedy", path, "-n", str(n), "-t", str(threads)]
    return out


def measure_pal(command, timeout, loops):
    text, around = machine.run(command, timeout, loops)
    try:
        speed = json.loads(text)["decode_tok_s"]
    except (ValueError, KeyError, TypeError) as e:
        raise machine.Failed(f"{' '.join(command)}: no figures in: {text[:200]!r}") from e
    return {"decode_tok_s": speed, "finished": True, "around": around}


def measure_peer(command, limit, loops):
    """A line comes before each pass: as many passes as there are lines after the first."""
    times, end, finished, around = machine.run_lines(command, PROMPT, limit, loops)
    if finished and len(times) < 2:
        raise machine.Failed(f"{' '.join(command)}: {len(times)} lines")
    last = times[-1] if finished else end
    speed = (len(times) - 1) / (last - times[0]) if len(times) > 1 else 0.0
    return {"decode_tok_s": speed, "finished": finished, "around": around}


def one_pair(engines, todo, timeout, limit):
    pair = {"order": engines}
    for engine in engines:
        pair[engine] = {}
        for name, (loops, command) in todo[engine].items():
            with busy_loops(loops) as pids:
                pair[engine][name] = (measure_pal(command, timeout, pids) if engine == "pal" else
                                      measure_peer(command, limit, pids))
    return pair


def arounds(pair):
    """What was around each run."""
    return [run["around"] for engine in pair["order"] for run in pair[engine].values()]


def shares(pair, engine):
    """{condition: its speed over the idle one}"""
    speeds = {name: run["decode_tok_s"] for name, run in pair[engine].items()}
    if not speeds["idle"]:
        raise machine.Failed(f"{engine} decoded nothing within the limit, with nothing beside it")
    return {name: v / speeds["idle"] for name, v in speeds.items() if name != "idle"}


def summarize(pairs):
    out = {}
    for engine in sorted(pairs[0]["order"]):
        tok = {name: spread([p[engine][name]["decode_tok_s"] for p in pairs])
               for name in pairs[0][engine]}
        of = [shares(p, engine) for p in pairs]
        out[engine] = {"decode_tok_s": tok,
                       "of_idle": {name: spread([s[name] for s in of]) for name in of[0]}}
    out["bars"] = {name: {"at_least": bar, "met": out["pal"]["of_idle"][name]["median"] >= bar}
                   for name, bar in BARS.items()}
    return out


def print_pair(name, pair):
    text = []
    for engine in ("pal", "peer"):
        if engine in pair:
            speeds = " ".join(f"{c} {r['decode_tok_s']:.4g}{'' if r['finished'] else ' (cut off)'}"
                              for c, r in pair[engine].items())
            text.append(f"{engine} {speeds}")
    others = max(around["others_share"] for around in arounds(pair))
    print(f"  {name}  " + "  ".join(text) + f"  (others took {others:.1%})", flush=True)


def print_summary(s, todo):
    print(f"  medians of {len(s['pal']['decode_tok_s']['idle']['values'])} pairs, and of the idle "
          "speed:")
    for name, (loops, command) in todo["pal"].items():
        how = f"{name}, {command[command.index('-t') + 1]} threads" + (
            f" and {loops} busy loops" if loops else "")
        for engine in ("pal", "peer"):
            if engine not in s:
                continue
            v = s[engine]["decode_tok_s"][name]
            text = (f"  {how:36} {engine:5}{v['median']:7.4g} ({v['min']:.4g} to "
                    f"{v['max']:.4g}) tok/s")
            if name != "idle":
                r = s[engine]["of_idle"][name]
                text += f"  {r['median']:.0%} ({r['min']:.0%} to {r['max']:.0%})"
                if engine == "pal":
                    bar = s["bars"][name]
                    text += f"  bar {bar['at_least']:.0%}: {'met' if bar['met'] else 'MISSED'}"
            print(text, flush=True)


def measure(args, under, peer, name, path, timeout):
    """Pairs of one model: what was run, the pairs, those measured again, the summary."""
    print(f"\n{name}, contended: decode of {args.decode} tokens"
          f"{'' if peer else '; pal alone'}", flush=True)
    todo = {}
    for condition, (loops, threads) in conditions(args.threads).items():
        each = commands(under, args.pal, peer, path, args.decode, threads)
        for engine, command in each.items():
            todo.setdefault(engine, {})[condition] = (loops, command)
    pairs, disturbed = [], []
    while len(pairs) < args.pairs:
        engines = list(todo) if len(pairs) % 2 == 0 else list(todo)[::-1]
        pair = one_pair(engines, todo, timeout, args.limit)
        again = len(disturbed) < args.retries and any(map(machine.disturbed, arounds(pair)))
        (disturbed if again else pairs).append(pair)
        print_pair("again " if again else f"pair {len(pairs)}", pair)
    summary = summarize(pairs)
    print_summary(summary, todo)
    shown = {engine: {c: {"busy_loops": loops, "command": machine.public(command)}
                      for c, (loops, command) in of.items()} for engine, of in todo.items()}
    return {"commands": shown, "pairs": pairs, "disturbed": disturbed, "summary": summary}
