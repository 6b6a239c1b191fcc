#!/usr/bin/env python3
"""Speed of pal and of llama.cpp on the same files, turn by turn.

A machine's speed changes from minute to minute, so the two run in pairs, one after the other,
and what counts is the ratio within a pair; whoever runs first in one pair runs second in the
next. Every sample goes into an evidence file (JSON) beside a plot of the ratios (SVG).

--models: names like 0.6b-q8_0 (random models, made once and kept in the cache folder; the
types are q8_0, q4_0 and q4_k_m, the shapes 0.6b and 1.7b; a shape alone means all types), or
GGUF files, with commas between them.
"""
import argparse
from datetime import datetime, timezone
import functools
import hashlib
import json
import os
from pathlib import Path
import shlex
import shutil
import subprocess
import sys

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "tools"))

import bounded  # noqa: E402
import contended  # noqa: E402
import llamacpp  # noqa: E402
import machine  # noqa: E402
import plot  # noqa: E402
import replay  # noqa: E402
from machine import Failed, spread  # noqa: E402

FORMAT = "palimpsest-bench-1"
SHAPES, TYPES = ("0.6b", "1.7b"), ("q8_0", "q4_0", "q4_k_m")
VERIFY = "1,2,4,8,16,32"  # what the peer's driver measures
RSS_BAR = 1.15  # times the file, and the K/V
TIMEOUT = 3600  # seconds of one run
PLOTTED = ("decode", "prefill", "verify(1)", "verify(8)", "verify(16)")


# --- models and programs ---


def cache():
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "palimpsest-bench"


def wanted_models(text):
    """[(name, path or None)]; None: a random model, made by its name."""
    out = []
    for name in text.split(","):
        shape, _, kind = name.partition("-")
        if name in SHAPES:
            out += [(f"{name}-{t}", None) for t in TYPES]
        elif shape in SHAPES and kind in TYPES:
            out.append((name, None))
        elif os.path.isfile(name):
            out.append((Path(name).stem, name))
        else:
            raise Failed(f"no model '{name}': neither a file nor a shape ({', '.join(SHAPES)}) and "
                         f"a type ({', '.join(TYPES)}), as in {SHAPES[0]}-{TYPES[0]}")
    return out


def numpy_python():
    for python in (sys.executable, "/usr/bin/python3"):
        if os.path.exists(python) and not subprocess.run(
                [python, "-c", "import numpy"], stderr=subprocess.DEVNULL, check=False).returncode:
            return python
    raise Failed("making random models needs NumPy (Debian: python3-numpy)")


def make_model(name):
    """A random model in the cache; the name of the tool that made it is part of its own."""
    tool = llamacpp.SHARED / "tools" / "mkgguf.py"
    if not tool.exists():
        tool = ROOT / "tests" / "tools" / "mkmodel.py"
    path = cache() / f"{name}-{tool.stem}.gguf"
    if not path.exists():
        print(f"making {path}", flush=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        shape, _, kind = name.partition("-")
        new = path.with_suffix(".new")
        subprocess.run([numpy_python(), str(tool), str(new), "--shape", shape, "--type", kind],
                       check=True, stdout=subprocess.DEVNULL)
        new.rename(path)
    return str(path)


def find_peer(args):
    """The path of the peer's driver, None if there is to be none."""
    if args.no_peer:
        return None
    peer, why = llamacpp.find_peer(args.peer)
    if peer and args.isa == "avx2":
        peer, why = llamacpp.with_only(peer, "haswell", cache() / "peer-haswell")
    if not peer:
        raise Failed(f"{why} (--no-peer measures pal alone)")
    return os.path.abspath(peer)


def sha256(path):
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def commit():
    """Of this checkout, from which --pal is not necessarily built."""
    if not shutil.which("git"):
        return None
    done = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
                          capture_output=True, text=True, check=False)
    return done.stdout.strip() or None


# --- measuring ---


def commands(args, peer, path, prefill):
    """{engine: its command} for one model and length of the prompt."""
    common = ["bench", path, "-p", str(prefill), "-n", str(args.decode), "-t", str(args.threads)]
    under = shlex.split(args.under)
    out = {"pal": [*under, args.pal, *common, "--verify", VERIFY, "--json", "--quiet"]}
    if args.isa:
        out["pal"] += ["--isa", args.isa]
    if peer:
        out["peer"] = [*under, peer, *common]
    return out


def measure(command):
    text, around = machine.run(command, TIMEOUT)
    try:
        sample = json.loads(text)
        if not all(v > 0 for v in (sample["prefill_tok_s"], sample["decode_tok_s"],
                                   *sample["verify_ms"].values())):
            raise ValueError
    except (ValueError, KeyError, TypeError, AttributeError) as e:
        raise Failed(f"{' '.join(command)}: no figures in: {text[:200]!r}") from e
    for place in ("model", "machine", "build"):  # kept once for all samples
        around[place] = sample.pop(place, None)
    return sample, around


def measure_pairs(args, what, todo):
    """The pairs of a series, those that were disturbed and measured again, and what pal says
    of its build and the model."""
    print(f"\n{what}", flush=True)
    pairs, disturbed, said = [], [], {}
    while len(pairs) < args.pairs:
        order = list(todo) if len(pairs) % 2 == 0 else list(todo)[::-1]
        pair = {"order": order}
        for engine in order:
            sample, around = measure(todo[engine])
            kept = {k: around.pop(k) for k in ("model", "machine", "build")}
            if engine == "pal":
                said = {"model": kept["model"], "build": kept["build"]}
            pair[engine] = {**sample, "around": around}
        again = len(disturbed) < args.retries and any(
            machine.disturbed(pair[engine]["around"]) for engine in order)
        (disturbed if again else pairs).append(pair)
        print_pair("again " if again else f"pair {len(pairs)}", pair)
    return pairs, disturbed, said


def phases(sample):
    """{phase: (value, whether more is faster)}"""
    out = {"decode": (sample["decode_tok_s"], True), "prefill": (sample["prefill_tok_s"], True)}
    return out | {f"verify({n})": (ms, False) for n, ms in sample["verify_ms"].items()}


def ratios(pair):
    """{phase: how many times as fast pal is}"""
    ours, theirs = phases(pair["pal"]), phases(pair["peer"])
    return {name: value / theirs[name][0] if more else theirs[name][0] / value
            for name, (value, more) in ours.items() if name in theirs}


def summarize(pairs, file_bytes):
    """Medians and spreads of a series; engines, ratios, and what pal tells of itself."""
    out = {}
    for engine in ("pal", "peer"):
        if engine in pairs[0]:
            each = [phases(p[engine]) for p in pairs]
            out[engine] = {name: spread([e[name][0] for e in each]) for name in each[0]}
    if "peer" in pairs[0]:
        each = [ratios(p) for p in pairs]
        out["ratio"] = {name: spread([e[name] for e in each]) for name in each[0]}
    ours = [p["pal"] for p in pairs]
    of = lambda value: spread([value(s) for s in ours])
    for n in ("8", "16"):
        out[f"verify({n})/verify(1)"] = of(lambda s, n=n: s["verify_ms"][n] / s["verify_ms"]["1"])
    out["read_share_kv"] = of(lambda s: (s["token_bytes"] + s["token_kv_bytes"])
                              * s["decode_tok_s"] / s["read_bytes_s"])
    out["read_bytes_s"] = of(lambda s: s["read_bytes_s"])
    out["read_share"] = of(lambda s: s["token_bytes"] * s["decode_tok_s"] / s["read_bytes_s"])
    out["load_s"] = of(lambda s: s["load_s"])
    out["rss_bytes"] = of(lambda s: s["rss_bytes"])
    out["rss_bar_bytes"] = RSS_BAR * file_bytes + ours[0]["kv_bytes"]
    out["rss_within_bar"] = out["rss_bytes"]["max"] <= out["rss_bar_bytes"]
    return out


def bars(name, prefill, isa, s):
    """What issue 3 asks of these types: [{what, bar, value, met}]; short prompts are like 512."""
    kind = name.rpartition("-")[2]
    if kind not in TYPES:
        return []
    deep = prefill >= 4096
    decode, fill, share = {"q8_0": (2.0, 3.5, 0.75), "q4_0": (1.8, 2.5, 0.60),
                           "q4_k_m": (2.0, 2.5, 0.60)}[kind]
    if isa or deep:
        decode = fill = 1.3 if isa else 3.0
    median = lambda *path: functools.reduce(lambda v, key: v[key], path, s)["median"]
    at_least = [("decode, times llama.cpp", decode, ("ratio", "decode")),
                ("prefill, times llama.cpp", fill, ("ratio", "prefill"))] if "ratio" in s else []
    at_most = []
    if not isa and not deep:
        at_least.append(("decode, of the reading speed", share, ("read_share",)))
        at_most = [(f"verify({n})/verify(1)", most, (f"verify({n})/verify(1)",))
                   for n, most in ((8, 1.25), (16, 1.7))]
        if name == "0.6b-q8_0":
            at_most.append(("load, seconds", 1.0, ("load_s",)))
    out = [{"what": what, "least": bar, "value": median(*path), "met": median(*path) >= bar}
           for what, bar, path in at_least]
    return out + [{"what": what, "most": bar, "value": median(*path), "met": median(*path) <= bar}
                  for what, bar, path in at_most]


# --- printing ---


def print_bars(found):
    for bar in found:
        limit = f"at least {bar['least']:.2f}" if "least" in bar else f"at most {bar['most']:.2f}"
        print(f"  bar: {bar['what']:32} {limit:14} {bar['value']:6.2f}  "
              f"{'met' if bar['met'] else 'MISSED'}", flush=True)


def print_pair(name, pair):
    ours = phases(pair["pal"])
    text = [f"  {name}"]
    for name, unit in (("decode", "tok/s"), ("prefill", "tok/s"), ("verify(8)", "ms")):
        if "peer" in pair:
            text.append(f"{name} {ours[name][0]:.4g}/{phases(pair['peer'])[name][0]:.4g} {unit} "
                        f"{ratios(pair)[name]:.2f}x")
        else:
            text.append(f"{name} {ours[name][0]:.4g} {unit}")
    others = max(pair[e]["around"]["others_share"] for e in pair["order"])
    print("  ".join(text) + f"  ({pair['order'][0]} first; others took {others:.1%})", flush=True)


def print_summary(s):
    def row(name, v, scale=1.0, form=".4g", unit=""):
        return (f"  {name:25}{v['median'] * scale:{form}}{unit} "
                f"({v['min'] * scale:{form}} to {v['max'] * scale:{form}})")

    print("  medians (and the spread of the pairs)")
    for name, v in s["pal"].items():
        line = row(name, v, unit=" ms" if "verify" in name else " tok/s")
        if "peer" in s:
            r = s["ratio"][name]
            line = (f"{line:60} llama.cpp {s['peer'][name]['median']:.4g}: "
                    f"{r['median']:.2f}x ({r['min']:.2f} to {r['max']:.2f})")
        print(line)
    for n in (8, 16):
        print(row(f"verify({n})/verify(1)", s[f"verify({n})/verify(1)"], form=".2f"))
    print(row("memory is read at", s["read_bytes_s"], 1e-9, ".1f", " GB/s"))
    print(row("of which decode reaches", s["read_share"], 100, ".0f", " %"))
    print(row("and with the K/V", s["read_share_kv"], 100, ".0f", " %"))
    print(row("load", s["load_s"], form=".2f", unit=" s"))
    bar = f"bar {s['rss_bar_bytes'] / 1e6:.0f} MB: {'within' if s['rss_within_bar'] else 'PAST IT'}"
    print(row("peak memory", s["rss_bytes"], 1e-6, ".0f", " MB") + f"  {bar}", flush=True)


def print_noise(found):
    if found:
        print("\n*** THE MACHINE WAS NOT QUIET: the figures are not to be trusted ***",
              *(f"***   {text}" for text in found), sep="\n", file=sys.stderr, flush=True)


# --- evidence ---


def one_series(args, peer, name, path, prefill):
    todo = commands(args, peer, path, prefill)
    library = llamacpp.describe(peer, path) if peer else None
    if peer and args.isa == "avx2" and library["library"] != "libggml-cpu-haswell.so":
        raise Failed(f"the peer loaded {library['library']} and not its AVX2 library")
    what = f"{name}, {prefill} tokens, {args.threads} threads" + (
        f", {args.isa}" if args.isa else "") + (
        f"; llama.cpp {library['release']}, {library['library']}" if peer else "; pal alone")
    pairs, disturbed, said = measure_pairs(args, what, todo)
    size = os.path.getsize(path)
    summary = summarize(pairs, size)
    print_summary(summary)
    if args.bars:
        summary["bars"] = bars(name, prefill, args.isa, summary)
        print_bars(summary["bars"])
    model = {k: v for k, v in (said["model"] or {}).items() if k != "file"}
    return {"model": {**model, "label": name, "file_bytes": size}, "prefill_tokens": prefill,
            "decode_tokens": args.decode, "build": said["build"], "peer": library,
            "commands": {k: machine.public(c) for k, c in todo.items()}, "pairs": pairs,
            "disturbed": disturbed, "summary": summary}


def one_contended(args, peer, name, path):
    library = llamacpp.describe(peer, path) if peer else None
    found = contended.measure(args, shlex.split(args.under), peer, name, path, TIMEOUT)
    return {"model": {"label": name, "file_bytes": os.path.getsize(path)},
            "decode_tokens": args.decode, "peer": library, **found}


def one_bounded(args, peer, name, path):
    library = llamacpp.describe(peer, path) if peer else None
    side = str(Path(path).with_suffix(".side.gguf"))
    found = bounded.series(args, shlex.split(args.under), peer, name, path,
                           side if os.path.exists(side) else None, TIMEOUT)
    if args.bars:
        print_bars(found["summary"]["bars"])
    return {"model": {"label": name, "file_bytes": os.path.getsize(path)},
            "decode_tokens": bounded.DECODE, "peer": library, **found}


def one_replay(args, peer, name, path):
    library = llamacpp.describe(peer, path) if peer else None
    found = replay.series(args, shlex.split(args.under), peer, name, path, TIMEOUT)
    if args.bars:
        print_bars(found["summary"]["bars"])
    return {"model": {"label": name, "file_bytes": os.path.getsize(path)},
            "decode_tokens": replay.DECODE, "peer": library, **found}


def write_evidence(args, here, when, built, series, found):
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    name = "-".join([when.strftime("%Y%m%dT%H%M%SZ"), machine.label(here),
                     *([args.isa] if args.isa else []),
                     *(["contended"] if args.contended else []),
                     *(["bounded"] if args.bounded else []),
                     *(["replay"] if args.replay else [])])
    evidence = {"format": FORMAT, "date": when.isoformat(timespec="seconds"), "machine": here,
                **built, "python": sys.version.split()[0],
                "settings": {"pairs": args.pairs, "retries": args.retries, "threads": args.threads,
                             "isa": args.isa},
                "not_quiet": found, "series": series}
    (out / f"{name}.json").write_text(json.dumps(evidence, indent=1) + "\n", encoding="utf-8")
    written = [out / f"{name}.json"]
    if series[0]["peer"] and not (args.contended or args.bounded or args.replay):
        groups = [(f"{s['model']['label']}, {s['prefill_tokens']} tokens",
                   [(p, s["summary"]["ratio"][p]["values"], s["summary"]["ratio"][p]["median"])
                    for p in PLOTTED if p in s["summary"]["ratio"]]) for s in series]
        text = plot.svg(f"pal and llama.cpp, {args.threads} threads, {args.pairs} pairs",
                        f"{here['cpu']}, {here['cores']} cores; {when:%Y-%m-%d}"
                        + (f"; {args.isa}" if args.isa else "")
                        + ("; the machine was not quiet" if found else ""), groups)
        written.append(out / f"{name}.svg")
        written[1].write_text(text, encoding="utf-8")
    print("\nwritten: " + " ".join(map(str, written)))


def options():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    number = lambda text: int(text) if text.isdecimal() and int(text) > 0 else ap.error(
        f"'{text}' is not a number above 0")
    ap.add_argument("--pal", default=str(ROOT / "build" / "pal"))
    ap.add_argument("--models", default=SHAPES[0], help=f"default: {SHAPES[0]}, all types")
    ap.add_argument("--pairs", type=number, default=7)
    ap.add_argument("--retries", type=int, default=0, metavar="N",
                    help="measure a pair again when other processes or the host took more than "
                         f"{machine.QUIET_SHARE:.0%}% of the CPU time, N times in a series at most")
    ap.add_argument("-p", "--prefill", type=number, default=512, help="tokens of the prompt")
    ap.add_argument("-n", "--decode", type=number, default=64, help="tokens to decode")
    ap.add_argument("-t", "--threads", type=number, default=2)
    ap.add_argument("--depth", type=number, action="append", default=[], metavar="N",
                    help="also measure after a prompt of N tokens (can be given again)")
    ap.add_argument("--contended", action="store_true",
                    help="instead: decode beside busy loops, one a core, and with "
                         f"{contended.CROWD} times as many threads as cores")
    ap.add_argument("--bounded", type=number, metavar="N",
                    help="instead: decode at growing depths with K/V of N positions (2048 in issue 4), "
                         "and what it takes to bring chunks back; `project` too where a side-car "
                         "is beside the model")
    ap.add_argument("--replay", type=number, metavar="N",
                    help="instead: drafting along bench/workloads, replies of N tokens at most")
    ap.add_argument("--turns", type=number, metavar="N",
                    help="of each transcript that is replayed, at most")
    ap.add_argument("--limit", type=number, default=20, metavar="SECONDS",
                    help="of one contended run of llama.cpp's (default 20)")
    ap.add_argument("--bars", action="store_true", help="print what is aimed at, and if it is met")
    ap.add_argument("--isa", choices=("avx2",), help="both engines with AVX2 only")
    ap.add_argument("--peer", help="llama.cpp's driver (default: found, or built with npm)")
    ap.add_argument("--no-peer", action="store_true", help="measure pal alone")
    ap.add_argument("--under", default="", metavar="COMMAND",
                    help="run each engine through this, for instance 'taskset -c 0,1'")
    ap.add_argument("--out", default=str(ROOT / "bench" / "results"), metavar="DIR")
    args = ap.parse_args()
    if sum(map(bool, (args.contended, args.bounded, args.replay, args.isa or args.depth))) > 1:
        ap.error("--contended, --bounded, --replay, and --isa or --depth exclude each other")
    if args.turns and not args.replay:
        ap.error("--turns belongs to --replay")
    return args


def main():
    args = options()
    args.pal = os.path.abspath(args.pal)
    here, when = machine.describe(), datetime.now(timezone.utc)
    # Now: the checkout may change, and the program be built anew, while this runs.
    built = {"commit": commit(), "pal_sha256": sha256(args.pal)}
    peer, models = find_peer(args), wanted_models(args.models)
    load = os.getloadavg()[0]
    if load > machine.QUIET_LOAD:
        print_noise([f"the load average is {load:.2f} before it starts"])
    if not peer:
        print("llama.cpp is not measured (--no-peer)")
    models = [(name, path or make_model(name)) for name, path in models]
    if args.contended:
        series = [one_contended(args, peer, name, path) for name, path in models]
        runs = [around for s in series for p in s["pairs"] for around in contended.arounds(p)]
        threads = contended.most_threads()
    elif args.bounded:
        series = [one_bounded(args, peer, name, path) for name, path in models]
        runs = [p[e]["around"] for s in series for p in s["pairs"] for e in p["order"]]
        threads = args.threads
    elif args.replay:
        series = [one_replay(args, peer, name, path) for name, path in models]
        runs = [p[e]["around"] for s in series for each in s["pairs"].values() for p in each
                for e in p["order"]]
        threads = args.threads
    else:
        series = [one_series(args, peer, name, path, prefill)
                  for name, path in models for prefill in [args.prefill, *args.depth]]
        runs = [p[e]["around"] for s in series for p in s["pairs"] for e in p["order"]]
        threads = args.threads
    found = machine.noise(runs, threads)
    if sha256(args.pal) != built["pal_sha256"]:
        raise Failed(f"{args.pal} was replaced while it was measured")
    write_evidence(args, here, when, built, series, found)
    print_noise(found)


if __name__ == "__main__":
    try:
        main()
    except (Failed, subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"compare.py: {error}")
