#!/usr/bin/python3
"""pal recall and pal check with a small random model, as TAP.

recall.py PAL MODEL HYBRID TASKS [unittest arguments]

Such a model recalls nothing: what is tested is that it is said, that the evidence holds together,
and that evidence which was tampered with is refused.
"""
import copy
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

from tap import TapRunner

PAL, MODEL, HYBRID, TASKS = (os.path.abspath(a) for a in sys.argv[1:5])
WORDS = "the slow river went on past old mills and new roads while nobody said a word of it".split()


def loads(text):
    """With real numbers as texts, so that they keep their digits."""
    return json.loads(text, parse_float="@{}".format)


def dumps(value):
    return re.sub(r'"@([^"]*)"', r"\1", json.dumps(value, separators=(",", ":"), sort_keys=True,
                                                   ensure_ascii=False))


def sum_of(evidence):
    """FNV-1a as in docs/formats/recall.md."""
    h = 0xcbf29ce484222325
    for b in dumps({k: v for k, v in evidence.items() if k != "sum"}).encode():
        h = (h ^ b) * 0x100000001b3 & (1 << 64) - 1
    return f"{h:016x}"


class Recall(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        with open(cls.path("filler"), "w", encoding="utf-8") as f:
            for i in range(400):
                f.write(" ".join(WORDS[(i * i + j * (i % 5 + 1)) % len(WORDS)]
                                 for j in range(15)) + ".\n")
        cls.out = cls.run_pal("recall", MODEL, *cls.usual(), "-o", cls.path("e.json"), "--report",
                              cls.path("e.html"))
        with open(cls.path("e.json"), encoding="utf-8") as f:
            cls.evidence = loads(f.read())

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder.name, name)

    @classmethod
    def usual(cls, *more):
        return ("--tasks", TASKS, "--filler", cls.path("filler"), "--lengths", "700,1100",
                "--window", "128", "--restored", "2", "--kinds", "key,hop", "--questions", "2",
                "--turns", "0", "--texts", "1", "--oracle-max", "700", "-t", "1", "-q",
                "--disk-dir", cls.folder.name, *more)

    @staticmethod
    def run_pal(*args):
        return subprocess.run([PAL, *args], capture_output=True, timeout=300, check=False)

    def refused(self, evidence, message):
        with open(self.path("bad.json"), "w", encoding="utf-8") as f:
            f.write(dumps(evidence))
        p = self.run_pal("check", self.path("bad.json"))
        text = p.stderr.decode()
        self.assertEqual((p.returncode, p.stdout), (1, b""), text)
        self.assertRegex(text, r"\Apal: .*bad\.json: .*" + message + r".*\n\Z")

    def test_run(self):
        self.assertEqual(self.out.returncode, 0, self.out.stderr)
        self.assertEqual(self.out.stderr, b"")
        e = self.evidence
        names = [a["name"] for a in e["arms"]]
        self.assertEqual(names[:5], ["oracle", "window", "recompute", "spill-f16",
                                     "spill-affine4"])
        for control in ("zero", "shuffle", "other", "random", "empty"):
            self.assertIn("recompute!" + control, names)
        self.assertEqual(e["sum"], sum_of(e))
        cells = [(a, k, n) for a in names for k in ("key", "hop") for n in (700, 1100)
                 if a != "oracle" or n == 700]
        self.assertEqual([(f["arm"], f["kind"], f["length"]) for f in e["figures"]], cells)
        for f in e["figures"]:
            self.assertEqual(f["n"], 2)
            restores = f["arm"] not in ("oracle", "window")
            self.assertEqual(f["chunks"] > 0, restores, f)
            self.assertEqual(f["far_reads"] > 0, restores, f)
            self.assertEqual(f["evicted_min"] > 0, f["arm"] != "oracle", f)
            self.assertEqual(f["fallbacks"], 0)
        for v in e["verdicts"]:
            self.assertEqual(v["verdict"], "not falsifiable on this model" if v["arm"] == "oracle"
                             else "failed", v)
        for log in e["logs"]:
            for q in log["questions"]:
                self.assertEqual(len(q["needles"]), 2 if q["kind"] == "hop" else 1)
                for begin, end in q["needles"]:
                    self.assertTrue(4 <= begin < end <= log["length"] - 128)
        text = self.out.stdout.decode()
        self.assertRegex(text, r"(?m)^recompute +key +700 +recall 0\.000 \(0\.000 to 0\.658 of 2\)")

    def test_same_seed_same_samples(self):
        p = self.run_pal("recall", MODEL, *self.usual("--json", "--arms", "recompute"))
        again = json.loads(p.stdout)
        runs = lambda e: [[(r["arm"], r["log"], r["answers"]) for r in log["runs"]
                           if not r["arm"].startswith("spill")] for log in e["logs"]]
        self.assertEqual(runs(again), runs(self.evidence))
        p = self.run_pal("recall", MODEL, *self.usual("--json", "--arms", "recompute", "--seed",
                                                      "2"))
        self.assertNotEqual(json.loads(p.stdout)["logs"][0]["hash"],
                            self.evidence["logs"][0]["hash"])

    def test_turns_selection_and_positions(self):
        p = self.run_pal("recall", MODEL, *self.usual(
            "--turns", "50", "--json", "--no-controls", "--lengths", "4000", "--oracle-max", "1",
            "--arms", "recompute:original,recompute:oracle,spill:random,recompute:lexical,"
            "recompute:both", "--restored", "8"))
        self.assertEqual(p.returncode, 0, p.stderr)
        e = json.loads(p.stdout)
        self.assertEqual([a["name"] for a in e["arms"][2:]],
                         ["recompute:original", "recompute:oracle", "spill-f16:random",
                          "recompute:lexical", "recompute:both"])
        turns = {f["arm"]: f["n"] for f in e["figures"] if f["kind"] == "turns"}
        self.assertEqual(turns, {"window": 50, "recompute:original": 50})
        found = {f["arm"]: f["found"] for f in e["figures"] if f["kind"] == "key"}
        self.assertEqual(found["recompute:oracle"], 2)
        chunks = {f["arm"]: f["chunks"] for f in e["figures"] if f["kind"] == "key"}
        self.assertEqual(chunks["recompute:lexical"], 2 * 2)  # a round of two a question
        self.assertNotEqual(chunks["recompute:both"], chunks["recompute:lexical"])
        evidence = self.path("selections.json")
        with open(evidence, "wb") as f:
            f.write(p.stdout)
        self.assertEqual(self.run_pal("check", evidence).returncode, 0)

    def test_exact_full_layers(self):
        p = self.run_pal("recall", HYBRID, *self.usual("--json", "--exact-full-layers",
                                                       "--arms", "recompute", "--lengths", "700"))
        self.assertEqual(p.returncode, 0, p.stderr)
        verdicts = json.loads(p.stdout)["verdicts"]
        self.assertEqual({v["verdict"] for v in verdicts}, {"not falsifiable on this model"})

    def test_check(self):
        p = self.run_pal("check", self.path("e.json"))
        self.assertEqual(p.returncode, 0, p.stderr)
        self.assertEqual(p.stdout.decode().count("\n"), len(self.evidence["verdicts"]))

    def test_tampered_with(self):
        """Each change is sealed again: it is the samples that do not support it."""
        def answers(e):
            run = next(r for r in e["logs"][0]["runs"] if r["arm"] == "recompute")
            run["answers"] = ";".join(q["expect"] for q in e["logs"][0]["questions"])

        def liveness(e):
            run = next(r for r in e["logs"][0]["runs"] if r["arm"] == "recompute")
            run["live"] = ";".join("0 0 0 0 0 5" for _ in e["logs"][0]["questions"])

        def seen(e):
            e["logs"][0]["questions"][0]["needles"][0] = [690, 699]

        def twice(e):
            e["logs"].append(copy.deepcopy(e["logs"][0]))

        def verdict(e):
            next(v for v in e["verdicts"] if v["arm"] == "recompute")["verdict"] = "validated"

        for change, message in (
                (answers, "figures: recompute, key at 700"),
                (liveness, "figures: recompute, key at 700"),
                (seen, "is not out of sight"), (twice, "the same log twice"),
                (verdict, "verdicts: recompute"),
                (lambda e: e["logs"][0]["runs"].pop(), r"arm spill-affine4!random at 700: 0 questions of 4"),
                (lambda e: e["arms"].pop(1), "the arm window, .*is missing"),
                (lambda e: e["figures"][1].update(high="@0.5"), "figures: oracle, hop at 700"),
                (lambda e: e["model"].update(hash="12"), "model: hash")):
            e = copy.deepcopy(self.evidence)
            change(e)
            e["sum"] = sum_of(e)
            self.refused(e, message)
        e = copy.deepcopy(self.evidence)
        e["machine"]["cpu"] = "a better one"
        self.refused(e, "changed after it was written")

    def test_report(self):
        with open(self.path("e.html"), encoding="utf-8") as f:
            page = f.read()
        self.assertEqual(page.count("<svg"), 4)
        self.assertEqual(page.count("<svg"), page.count("</svg>"))
        self.assertNotRegex(page, r"<script|https?://|src=|<link")
        self.assertIn(self.evidence["model"]["hash"], page)
        for arm in self.evidence["arms"]:
            self.assertIn(f"<td>{arm['name']}</td>", page)
        self.assertFalse(re.search(r"\bnan\b|\binf\b", page))

    def test_wrong_usage(self):
        for more, message in (
                (["--arms", "nothing"], "no arm 'nothing'"),
                (["--arms", "spill:fast"], "no arm 'spill:fast'"),
                (["--arms", "spill,spill-f16"], "arm spill-f16 is given twice"),
                (["--kinds", "key,key"], "--kinds key,key"),
                (["--kinds", "nothing"], "'nothing' is no kind"),
                (["--lengths", "900,800"], "--lengths 900,800: .*ascending"),
                (["--lengths", "200"], "no room for"),
                (["--tasks", "/nowhere"], "/nowhere"),
                (["--filler", TASKS, "--tasks", self.path("filler")], "filler: line 1")):
            p = self.run_pal("recall", MODEL, *self.usual(*more))
            self.assertEqual(p.returncode, 1)
            self.assertRegex(p.stderr.decode(), r"\Apal: .*" + message + r".*\n\Z")
        p = self.run_pal("recall", MODEL)
        self.assertRegex(p.stderr.decode(), "--tasks and --filler are needed")
        p = self.run_pal("check", "/nowhere")
        self.assertRegex(p.stderr.decode(), r"\Apal: /nowhere: ")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[5:]], testRunner=TapRunner)
