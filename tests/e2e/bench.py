#!/usr/bin/python3
"""bench/compare.py with a small model and a peer that is a script, as TAP.

bench.py PAL MODEL NARROW COMPARE [unittest arguments]

NARROW: another model, for what reads many thousand tokens.
"""
import contextlib
import hashlib
import json
import os
from pathlib import Path
import platform
import re
import subprocess
import sys
import tempfile
import unittest
import xml.etree.ElementTree as ElementTree

from tap import TapRunner, sanitized

PAL, MODEL, NARROW, COMPARE = (os.path.abspath(a) for a in sys.argv[1:5])
sys.path.insert(0, os.path.dirname(COMPARE))

import contended  # noqa: E402
import machine  # noqa: E402
import replay  # noqa: E402

LENGTHS = ["1", "2", "4", "8", "16", "32"]
# Slower in every run, so that a sample tells which run it was; a line in a file for each.
PEER = """#!/usr/bin/python3
import json, os, sys, time
if sys.argv[1] == "tokenize":
    sys.exit("load_backend: loaded CPU backend from /somewhere/libggml-cpu-fake.so")
if sys.argv[1] == "greedy":
    ids, n, threads = sys.stdin.read().split(), int(sys.argv[4]), int(sys.argv[6])
    for i in range(n if threads == 1 else 3):
        print(len(ids), flush=True)
        time.sleep(0.01)
    if threads > 1:
        time.sleep(1000)
    sys.exit()
log = os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), "runs")
with open(log, "a") as f:
    f.write(" ".join(sys.argv[3:]) + "\\n")
run = len(open(log).readlines())
if os.environ.get("PEER_FAILS") == str(run):
    sys.exit("peer: no more")
print(json.dumps({"engine": "llama.cpp", "threads": 1, "prefill_tokens": 8,
    "prefill_tok_s": 100 / run, "decode_tokens": 2, "decode_tok_s": 10 / run,
    "verify_ms": {str(1 << i): run * (i + 1.0) for i in range(6)}}))
"""


class Compare(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.out = Path(self.folder.name, "results")
        self.peer = Path(self.folder.name, "peer")
        self.peer.write_text(PEER, encoding="utf-8")
        self.peer.chmod(0o755)

    def compare(self, *args, peer=True, **env):
        command = [sys.executable, COMPARE, "--pal", PAL, "--out", str(self.out), "-p", "8", "-n",
                   "2", "-t", "1", *(["--peer", str(self.peer)] if peer else []), *args]
        return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False,
                              env={**os.environ, "XDG_CACHE_HOME": self.folder.name, **env})

    def good(self, *args, **more):
        p = self.compare(*args, **more)
        self.assertEqual(p.returncode, 0, p.stderr)
        evidence = list(self.out.glob("*.json"))
        self.assertEqual(len(evidence), 1)
        return p, json.loads(evidence[0].read_text(encoding="utf-8"))

    def fails(self, text, *args, **more):
        """One line on standard error that has the text, and nothing written."""
        p = self.compare(*args, **more)
        self.assertEqual(p.returncode, 1, p.stderr)
        self.assertRegex(p.stderr.strip().split("\n")[-1], "^compare.py: .*" + text)
        self.assertFalse(self.out.exists())

    def check_spread(self, s, n):
        self.assertEqual(len(s["values"]), n)
        self.assertEqual((s["min"], s["max"]), (min(s["values"]), max(s["values"])))
        self.assertTrue(s["min"] <= s["median"] <= s["max"], s)

    def test_evidence(self):
        p, e = self.good("--models", MODEL, "--pairs", "2")
        self.assertEqual(e["format"], "palimpsest-bench-1")
        self.assertRegex(e["date"], r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00$")
        self.assertTrue(e["machine"]["cpu"] and e["machine"]["cores"] > 0)
        self.assertGreater(e["machine"]["memory_bytes"], 1 << 20)
        self.assertIsInstance(e["machine"]["flags"], list)
        self.assertEqual(e["settings"], {"pairs": 2, "retries": 0, "threads": 1, "isa": None})
        self.assertEqual(e["pal_sha256"], hashlib.sha256(Path(PAL).read_bytes()).hexdigest())
        self.assertIsInstance(e["not_quiet"], list)
        self.assertEqual("NOT QUIET" in p.stderr, bool(e["not_quiet"]) or
                         "before it starts" in p.stderr)
        (series,) = e["series"]
        self.assertEqual(series["model"]["file_bytes"], os.path.getsize(MODEL))
        self.assertRegex(series["model"]["hash"], r"^[0-9a-f]{16}$")
        self.assertEqual(series["peer"]["library"], "libggml-cpu-fake.so")
        self.assertIn("version", series["build"])
        self.assertEqual(series["commands"]["peer"],
                         f"peer bench {os.path.basename(MODEL)} -p 8 -n 2 -t 1")
        self.assertEqual([q["order"] for q in series["pairs"]],
                         [["pal", "peer"], ["peer", "pal"]])
        for pair in series["pairs"]:
            for engine in ("pal", "peer"):
                self.assertEqual(list(pair[engine]["verify_ms"]), LENGTHS)
                around = pair[engine]["around"]
                self.assertTrue(all(around[k] >= 0 for k in ("load_average", "others_share",
                                                             "stolen_share")), around)
                self.assertTrue(around["wall_s"] > 0 and around["max_rss_bytes"] > 0, around)
        # No folder of this machine, only names.
        self.assertNotRegex(json.dumps(e), r'"[^"]*' + re.escape(self.folder.name))
        self.assertNotIn(os.path.dirname(MODEL) + "/", json.dumps(e))

    def test_summary(self):
        p, e = self.good("--models", MODEL, "--pairs", "3")
        (series,) = e["series"]
        summary, pairs = series["summary"], series["pairs"]
        names = ["decode", "prefill", *(f"verify({n})" for n in LENGTHS)]
        for part in ("pal", "peer", "ratio"):
            self.assertEqual(list(summary[part]), names)
            for s in summary[part].values():
                self.check_spread(s, 3)
        # The n-th run of the peer is n times as slow, and a ratio is that of a pair.
        self.assertEqual(summary["peer"]["decode"]["values"], [10, 5, 10 / 3])
        self.assertEqual(summary["peer"]["verify(8)"]["values"], [4, 8, 12])
        for i, pair in enumerate(pairs):
            self.assertAlmostEqual(summary["ratio"]["decode"]["values"][i],
                                   pair["pal"]["decode_tok_s"] / pair["peer"]["decode_tok_s"])
            self.assertAlmostEqual(summary["ratio"]["verify(8)"]["values"][i],
                                   pair["peer"]["verify_ms"]["8"] / pair["pal"]["verify_ms"]["8"])
        for name in ("verify(8)/verify(1)", "verify(16)/verify(1)", "read_bytes_s", "read_share",
                     "load_s", "rss_bytes"):
            self.check_spread(summary[name], 3)
        self.assertAlmostEqual(summary["rss_bar_bytes"], 1.15 * os.path.getsize(MODEL)
                               + pairs[0]["pal"]["kv_bytes"])
        for n in (1, 2, 3):
            self.assertRegex(p.stdout, rf"(?m)^  pair {n}  decode .*x  prefill .*x  verify\(8\)")
        self.assertRegex(p.stdout, r"(?m)^  decode .* llama.cpp 5: .*x \(.* to .*\)$")
        self.assertRegex(p.stdout, r"(?m)^  peak memory .*  bar \d+ MB: (within|PAST IT)$")

    def test_plot(self):
        self.good("--models", MODEL, "--pairs", "2", "--depth", "20", "--under", "nice -n 0")
        (path,) = self.out.glob("*.svg")
        root = ElementTree.parse(path).getroot()
        space = "{http://www.w3.org/2000/svg}"
        self.assertEqual(root.tag, space + "svg")
        series, phases, pairs = 2, 5, 2
        self.assertEqual(len(root.findall(space + "rect")), series * phases)
        self.assertEqual(len(root.findall(space + "circle")), series * phases * pairs)
        height = float(root.get("height"))
        for item in root.iter():
            for name, most in (("cx", 760), ("x", 760), ("cy", height), ("y", height)):
                self.assertTrue(0 <= float(item.get(name, 0)) <= most, item.attrib)
        texts = [t.text for t in root.findall(space + "text")]
        self.assertEqual(texts.count("decode"), series)
        runs = Path(self.folder.name, "runs").read_text(encoding="utf-8").split("\n")[:-1]
        self.assertEqual(runs, ["-p 8 -n 2 -t 1"] * 2 + ["-p 20 -n 2 -t 1"] * 2)

    def test_disturbed_pairs(self):
        with contextlib.ExitStack() as stack:
            for _ in range(1 + os.cpu_count() // 8):  # an eighth of the machine is enough
                busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
                stack.callback(busy.wait)
                stack.callback(busy.kill)
            p, e = self.good("--models", MODEL, "--pairs", "1", "--retries", "2")
        (series,) = e["series"]
        self.assertEqual((len(series["pairs"]), len(series["disturbed"])), (1, 2))
        self.assertEqual([q["order"] for q in series["disturbed"]], [["pal", "peer"]] * 2)
        self.assertEqual(series["summary"]["peer"]["decode"]["values"], [10 / 3])
        self.assertEqual(p.stdout.count("\n  again "), 2)
        self.assertIn("NOT QUIET", p.stderr)
        self.assertTrue(e["not_quiet"])

    def test_contended(self):
        limit = 12  # seconds: many times what a peer takes that ends
        p, e = self.good("--models", MODEL, "--pairs", "2", "-n", "5", "--contended", "--limit",
                         str(limit))
        (series,) = e["series"]
        cores = len(os.sched_getaffinity(0))
        self.assertEqual(series["commands"]["peer"]["crowded"], {
            "busy_loops": 0,
            "command": f"peer greedy {os.path.basename(MODEL)} -n 5 -t {4 * cores}"})
        self.assertEqual({c: v["busy_loops"] for c, v in series["commands"]["pal"].items()},
                         {"idle": 0, "beside": cores, "crowded": 0})
        self.assertEqual([q["order"] for q in series["pairs"]],
                         [["pal", "peer"], ["peer", "pal"]])
        for pair in series["pairs"]:
            self.assertEqual([r["finished"] for r in pair["peer"].values()], [True, True, False])
            self.assertTrue(all(r["finished"] for r in pair["pal"].values()))
            # Two passes until it is cut off, and no more; that it is may take as long again.
            speeds = {name: r["decode_tok_s"] for name, r in pair["peer"].items()}
            self.assertTrue(0 < speeds["crowded"] < speeds["idle"], pair)
            self.assertLess(speeds["crowded"], 2 * 2 / limit)
        for engine in ("pal", "peer"):
            summary = series["summary"][engine]
            for name in ("idle", "beside", "crowded"):
                self.check_spread(summary["decode_tok_s"][name], 2)
            for name in ("beside", "crowded"):
                self.check_spread(summary["of_idle"][name], 2)
                for i, pair in enumerate(series["pairs"]):
                    self.assertAlmostEqual(
                        summary["of_idle"][name]["values"][i],
                        pair[engine][name]["decode_tok_s"] / pair[engine]["idle"]["decode_tok_s"])
        for name, least in (("beside", 0.35), ("crowded", 0.7)):
            bar = series["summary"]["bars"][name]
            self.assertEqual(bar, {"at_least": least, "met": series["summary"]["pal"]["of_idle"]
                                   [name]["median"] >= least})
        self.assertRegex(p.stdout, r"(?m)^  crowded, \d+ threads +pal .*%\)  bar 70%: (met|MISSED)$")
        self.assertFalse(list(self.out.glob("*.svg")))
        self.assertTrue(list(self.out.glob("*-contended.json")))

    @unittest.skipIf(sanitized(PAL), "under sanitizers 65,536 tokens take minutes")
    def test_bounded(self):
        p, e = self.good("--models", NARROW, "--pairs", "2", "--bounded", "1024", "--bars")
        (series,) = e["series"]
        self.assertEqual(series["budget_positions"], 1024)
        self.assertEqual(list(series["commands"]),
                         ["deep", "recompute", "spill", "peer 8192", "peer 16384"])
        self.assertIn("--window 636", series["commands"]["spill"])
        self.assertEqual([q["order"] for q in series["pairs"]],
                         [list(series["commands"]), list(series["commands"])[::-1]])
        summary = series["summary"]
        for i, pair in enumerate(series["pairs"]):
            deep = {d["depth"]: d["decode_tok_s"] for d in pair["deep"]["depths"]}
            self.assertEqual(list(deep), [2048, 8192, 16384, 65536])
            self.assertEqual(summary["decode at 16384"]["values"][i], deep[16384])
            self.assertAlmostEqual(summary["ratio at 16384"]["values"][i],
                                   deep[16384] / pair["peer 16384"]["decode_tok_s"])
            self.assertAlmostEqual(summary["deepest / shallowest"]["values"][i],
                                   deep[65536] / deep[2048])
            for source in ("recompute", "spill"):
                (d,) = pair[source]["depths"]
                self.assertEqual(d["slots"], 8)
                self.assertAlmostEqual(summary[f"{source}: fill, ms"]["values"][i],
                                       1e3 * d["fill_s"])
        bars = {bar["what"]: bar for bar in summary["bars"]}
        self.assertEqual(len(bars), 4)  # no side-car, no `project`
        self.assertEqual(bars["ratio at 8192"]["met"],
                         summary["ratio at 8192"]["median"] >= 4)
        self.assertRegex(p.stdout, r"(?m)^  bar: ratio at 8192 .*(met|MISSED)$")
        self.assertTrue(list(self.out.glob("*-bounded.json")))

    def test_replay(self):
        p, e = self.good("--models", str(replay.TOKENIZER), "--pairs", "1", "--replay", "8",
                         "--turns", "1", "--bars")
        (series,) = e["series"]
        self.assertEqual(list(series["pairs"]), ["agent", "chat", "edit", "prose", "quote"])
        runs = Path(self.folder.name, "runs").read_text(encoding="utf-8").split("\n")[:-1]
        self.assertEqual(len(runs), 5)
        for name, pairs in series["pairs"].items():
            summary = series["summary"][name]
            for i, pair in enumerate(pairs):
                self.assertEqual(pair["pal"]["workload"], name)
                self.assertEqual(pair["pal"]["differing"], 0)
                self.assertIn(f"-p {pair['pal']['depth']} -n 64 -t 1", runs)
                self.assertEqual(summary["speedup"]["values"][i], pair["pal"]["speedup"])
                known = pair["earlier"]
                self.assertEqual(known["differing"], 0)
                self.assertEqual(summary["speedup, earlier sessions known"]["values"][i],
                                 known["speedup"])
                self.assertAlmostEqual(summary["of llama.cpp"]["values"][i],
                                       pair["pal"]["tok_s"] / pair["peer"]["decode_tok_s"])
        bars = {bar["what"]: bar for bar in series["summary"]["bars"]}
        self.assertEqual(len(bars), 16)
        self.assertEqual(bars["agent, times plain, earlier sessions known"]["least"], 2.5)
        texts = sorted(p.name for p in replay.EARLIER.glob("*.txt"))
        self.assertEqual(sorted(series["corpus"]["texts_sha256"]), texts)
        self.assertNotIn(tempfile.gettempdir(), str(series["commands"]))
        self.assertEqual(bars["chat, times plain"]["met"],
                         series["summary"]["chat"]["speedup"]["median"] >= 0.98)
        self.assertRegex(p.stdout, r"(?m)^  bar: agent, times llama.cpp .*(met|MISSED)$")
        self.assertTrue(list(self.out.glob("*-replay.json")))

    def test_busy_loops_are_not_noise(self):
        with contended.busy_loops(os.cpu_count()) as pids:
            known, unknown = machine.Around(pids), machine.Around()
            child = subprocess.Popen(["sleep", "0.5"])
            _, _, used = os.wait4(child.pid, 0)
            child.returncode = 0
            self.assertLess(known.end(used)["others_share"] + 0.05,
                            unknown.end(used)["others_share"])

    def test_bars(self):
        model = Path(self.folder.name, "small-q8_0.gguf")
        model.symlink_to(MODEL)
        p, e = self.good("--models", str(model), "--pairs", "1", "--bars")
        found = {b["what"]: b for b in e["series"][0]["summary"]["bars"]}
        s = e["series"][0]["summary"]
        self.assertEqual(found["decode, times llama.cpp"]["value"], s["ratio"]["decode"]["median"])
        self.assertEqual(found["decode, times llama.cpp"]["least"], 2)
        self.assertEqual(found["verify(8)/verify(1)"],
                         {"what": "verify(8)/verify(1)", "most": 1.25,
                          "value": s["verify(8)/verify(1)"]["median"],
                          "met": s["verify(8)/verify(1)"]["median"] <= 1.25})
        self.assertEqual(len(re.findall("(?m)^  bar: .*(met|MISSED)$", p.stdout)), len(found))

    def test_alone(self):
        isa = ["--isa", "avx2"] if platform.machine() == "x86_64" else []
        p, e = self.good("--models", MODEL, "--pairs", "1", "--no-peer", *isa, peer=False)
        self.assertIn("llama.cpp is not measured", p.stdout)
        self.assertNotIn("ratio", e["series"][0]["summary"])
        if isa:
            self.assertEqual(e["series"][0]["model"]["isa"], "avx2")
        self.assertFalse(list(self.out.glob("*.svg")))

    def test_failures(self):
        self.fails("no model 'nothing': neither a file", "--models", "nothing")
        self.fails("no model '0.6b-q7'", "--models", "0.6b-q7")
        self.fails("peer bench .*exit status 1: peer: no more", "--models", MODEL,
                   PEER_FAILS="2")
        self.fails("bench .*exit status 1: pal: .*broken.gguf", "--models", self.broken())
        self.fails("not built by ../shared/peer/setup.sh", "--models", MODEL, "--isa", "avx2")
        self.fails("No such file|peer: ", "--models", MODEL, "--peer", "/nowhere/peer")
        self.peer.write_text("#!/bin/sh\necho '{}'\n", encoding="utf-8")
        self.fails("no figures in", "--models", MODEL)

    def broken(self):
        path = Path(self.folder.name, "broken.gguf")
        path.write_bytes(b"GGUF")
        return str(path)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[5:]], testRunner=TapRunner)
