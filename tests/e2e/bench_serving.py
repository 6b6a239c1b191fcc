#!/usr/bin/python3
"""bench/serving.py, each part as short as it can be, as TAP.

bench_serving.py PAL MODEL SERVING [unittest arguments]
"""
import importlib.util
import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile
import unittest

from tap import TapRunner

PAL, MODEL, SERVING = (os.path.abspath(a) for a in sys.argv[1:4])
spec = importlib.util.spec_from_file_location("bench_serving", SERVING)
serving = importlib.util.module_from_spec(spec)
spec.loader.exec_module(serving)


class Parts(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = Path(folder.name, "results")

    def measure(self, part, *args, model=MODEL):
        return subprocess.run([sys.executable, SERVING, part, "--pal", PAL, "--model", model,
                               "--out", str(self.out), "-t", "1", *args], capture_output=True,
                              text=True, timeout=300, check=False)

    def good(self, part, *args):
        """The evidence, and its bars by what they are of."""
        p = self.measure(part, *args)
        self.assertEqual(p.returncode, 0, p.stderr)
        (path,) = self.out.glob(f"*-serving-{part}.json")
        text = path.read_text(encoding="utf-8")
        e = json.loads(text)
        self.assertEqual((e["format"], e["part"]), ("palimpsest-serving-1", part))
        self.assertTrue(e["machine"]["cpu"] and e["pal_sha256"] and e["around"])
        self.assertTrue(e["command"].startswith("pal serve palimpsest-5m.gguf"), e["command"])
        self.assertNotIn(os.path.dirname(MODEL), text)
        for bar in e["summary"]["bars"]:
            within = (bar["value"] >= bar["least"] if "least" in bar
                      else bar["value"] <= bar["most"])
            self.assertEqual(bar["met"], within)
            self.assertIn(f"bar: {bar['what']}", p.stdout)
        return e, {bar["what"]: bar for bar in e["summary"]["bars"]}

    def test_throughput(self):
        e, _ = self.good("throughput", "--sessions", "3", "--rounds", "2", "--tokens", "9")
        self.assertEqual([r["order"] for r in e["rounds"]],
                         [["alone", "together"], ["together", "alone"]])
        for i, r in enumerate(e["rounds"]):
            self.assertEqual((r["alone"]["tokens"], r["together"]["tokens"]), (9, 27))
            self.assertAlmostEqual(e["summary"]["ratio"]["values"][i],
                                   r["together"]["tok_s"] / r["alone"]["tok_s"])

    def test_soak(self):
        e, bars = self.good("soak", "--sessions", "4", "--minutes", "0.05", "--tokens", "4",
                            "--memory-limit", "1G")
        self.assertEqual(len(e["sessions"]), 4)
        self.assertTrue(e["memory"] and all(m["rss_bytes"] > 0 for m in e["memory"]))
        self.assertEqual(e["summary"]["errors"], 0, e["sessions"])
        self.assertTrue(bars["peak memory, of the limit"]["met"])
        self.assertEqual(e["summary"]["tokens"], e["summary"]["turns"] * (32 + 4))

    def test_turns(self):
        e, bars = self.good("turns", "--turns", "12", "--questions", "4", "--tokens", "3")
        self.assertEqual({(t["in"], t["out"]) for t in e["turns"]}, {(57, 3)})
        self.assertEqual(e["summary"]["log_length"], 12 * 60)
        self.assertEqual([q["right"] for q in e["questions"]],
                         [q["got"] == q["expected"] for q in e["questions"]])
        self.assertEqual(len(e["questions"]), 4)
        self.assertTrue(bars["kv_bytes"]["met"] and bars["different kv_bytes"]["met"])

    def test_resend(self):
        e, bars = self.good("resend", "--history", "900", "--rounds", "1")
        self.assertEqual([r["edit"] for r in e["rounds"]], ["same length", "longer"])
        for r in e["rounds"]:
            self.assertTrue(40 <= r["edit_token"] <= 60, r["edit_token"])
            self.assertEqual((r["first"]["tokens_reused"], r["first"]["edits"]), (0, 0))
            self.assertGreater(r["second"]["tokens_reused"], 0)
        self.assertTrue(bars["replies that say what was reused"]["met"])
        self.assertFalse(bars["tokens of the history"]["met"])

    def test_tools(self):
        e, bars = self.good("tools", "--calls", "3")
        self.assertEqual([c["faults"] for c in e["calls"]], [[]] * 3)
        self.assertTrue(bars["calls that are not valid"]["met"])
        self.assertFalse(bars["calls"]["met"])

    def test_failures(self):
        for text, args, model in (("no model 'nothing'", (), "nothing"),
                                  ("pal serve .*--nope", ("--serve=--nope",), MODEL),
                                  ("not a number of bytes", ("--memory-limit", "much"), MODEL)):
            p = self.measure("soak", *args, model=model)
            self.assertEqual(p.returncode, 1, p.stderr)
            self.assertRegex(p.stderr, "(?s)^serving.py: .*" + text)
            self.assertFalse(self.out.exists())


class Judging(unittest.TestCase):
    def test_fairness(self):
        self.assertEqual(serving.jain([5, 5, 5, 5]), 1)
        self.assertEqual(serving.jain([8, 0, 0, 0]), 0.25)
        self.assertEqual(serving.jain([0, 0]), 0)

    def test_schema(self):
        good = {"city": "Oslo", "days": 3, "unit": "kelvin", "alerts": False, "stations": ["a"],
                "area": {"radius": 0}}
        self.assertEqual(serving.faults(good, serving.SCHEMA), [])
        for change in ({"city": ""}, {"city": "x" * 25}, {"days": 0}, {"days": 3.0},
                       {"days": True}, {"unit": "rankine"}, {"alerts": 0}, {"stations": ["a"] * 4},
                       {"stations": [1]}, {"area": {}}, {"area": {"radius": 501}},
                       {"area": {"radius": 1, "more": 1}}, {"more": 1}):
            self.assertEqual(len(serving.faults({**good, **change}, serving.SCHEMA)), 1, change)
        del good["unit"]
        self.assertEqual(len(serving.faults(good, serving.SCHEMA)), 1)
        self.assertTrue(serving.faults([], serving.SCHEMA))

    def test_facts(self):
        facts = serving.Facts(7)
        drawn = [facts.draw() for _ in range(200)]
        self.assertEqual(len({line for line, _, _ in drawn}), 200)
        for line, asked, answer in drawn:
            self.assertRegex(asked, r"^Question: [^{}]+\nAnswer: $")
            self.assertRegex(answer, r"^\d{4}\.$")
            self.assertIn(answer[:4], line)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]], testRunner=TapRunner)
