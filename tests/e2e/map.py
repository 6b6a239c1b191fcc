#!/usr/bin/python3
"""pal map and pal check with small models, as TAP. Nothing here depends on how fast anything is.

map.py PAL MODEL TRAINED WORKLOADS [unittest arguments]

MODEL: a random model; TRAINED: one that ships; WORKLOADS: the transcripts.
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

PAL, MODEL, TRAINED, WORKLOADS = (os.path.abspath(a) for a in sys.argv[1:5])
NAMES = ["agent", "chat", "edit", "prose", "quote"]
TALK = ("=== given\nred green blue red green blue red green\n=== reply\n blue red green blue red\n"
        "=== given\nand once more\n=== reply\nred green blue red green blue\n")


def loads(text):
    """With real numbers as texts, so that they keep their digits."""
    return json.loads(text, parse_float="@{}".format)


def dumps(value):
    return re.sub(r'"@([^"]*)"', r"\1", json.dumps(value, separators=(",", ":"), sort_keys=True,
                                                   ensure_ascii=False))


def sum_of(evidence):
    """FNV-1a as in docs/formats/map.md."""
    h = 0xcbf29ce484222325
    for b in dumps({k: v for k, v in evidence.items() if k != "sum"}).encode():
        h = (h ^ b) * 0x100000001b3 & (1 << 64) - 1
    return f"{h:016x}"


def turns(pair):
    return [[int(x) for x in turn.split()] for turn in pair["turns"].split(";")]


class Map(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        with open(cls.path("talk.txt"), "w", encoding="utf-8") as f:
            f.write(TALK)

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder.name, name)

    @staticmethod
    def run_pal(*args):
        return subprocess.run([PAL, *args], capture_output=True, timeout=300, check=False)

    def map(self, model, *args):
        p = self.run_pal("map", model, "-t", "1", "-q", "-o", self.path("e.json"), *args)
        self.assertEqual((p.returncode, p.stderr), (0, b""))
        with open(self.path("e.json"), encoding="utf-8") as f:
            e = loads(f.read())
        self.assertEqual(e["sum"], sum_of(e))
        check = self.run_pal("check", self.path("e.json"))
        self.assertEqual((check.returncode, check.stderr, check.stdout), (0, b"", p.stdout))
        self.assertEqual({f["differing"] for f in e["figures"]}, {0})
        return e

    def talk(self, *args):
        return self.map(MODEL, "--workloads", self.folder.name, "--pairs", "2", *args)

    def test_shipped_pair(self):
        """Freely on every transcript: each drafter's output is that of plain decoding."""
        e = self.map(TRAINED, "--workloads", WORKLOADS, "--turns", "2", "-n", "24", "--pairs", "1",
                     "--ignore-eos")
        p = e["parameters"]
        self.assertEqual([w["name"] for w in p["workloads"]], NAMES)
        self.assertEqual((p["modes"], p["drafters"]),
                         (["greedy", "sampled"], ["ngram", "suffix", "auto"]))
        self.assertEqual(len(e["figures"]), 5 * 2 * 3)
        for run in e["runs"]:
            self.assertEqual([n for n, _ in turns(run["plain"][0])], [24, 24])
            for own in run["drafted"]:
                self.assertEqual(own["pairs"][0]["output"], run["plain"][0]["output"])

    def test_replay(self):
        e = self.map(TRAINED, "--workloads", WORKLOADS, "--workload", "quote", "--turns", "2",
                     "--pairs", "1", "--replay", "--draft", "none", "--draft", "ngram")
        none, ngram = e["figures"]
        replies = [int(n) for n in e["parameters"]["workloads"][0]["replies"].split()]
        self.assertEqual(none["tokens"], sum(replies))
        self.assertEqual((none["forwards"], none["drafted"]), (none["tokens"], 0))
        self.assertEqual(none["tokens_per_forward"], "@1.0")
        self.assertEqual(ngram["tokens"], none["tokens"])
        # How much is drafted is chosen by time; what a pass gives follows from what was accepted.
        self.assertEqual(ngram["forwards"] + ngram["accepted"], ngram["tokens"])
        self.assertEqual({r["mode"] for r in e["runs"]}, {"replay"})

    def test_replay_of_part_of_a_reply(self):
        e = self.talk("--replay", "-n", "3", "--draft", "ngram")
        for pair in e["runs"][0]["plain"] + e["runs"][0]["drafted"][0]["pairs"]:
            self.assertEqual([t[0] for t in turns(pair)], [3, 3])

    def test_kv_policies(self):
        for kv in (["window"], ["restored", "--restored", "1"]):
            self.talk("--kv", *kv, "--window", "96", "--disk-dir", self.folder.name,
                      "--ignore-eos")

    def test_another_vocabulary(self):
        """A random model reads the ids of a smaller vocabulary; a larger one is refused."""
        e = self.map(TRAINED, "--workloads", self.folder.name, "--tokenizer", MODEL, "--replay",
                     "--draft", "none", "--pairs", "1")
        self.assertNotEqual(e["parameters"]["vocabulary"], e["model"]["hash"])
        p = self.run_pal("map", MODEL, "--workloads", WORKLOADS, "--tokenizer", TRAINED, "-q")
        self.assertEqual((p.returncode, p.stdout), (1, b""))
        self.assertRegex(p.stderr.decode(), r"\Apal: agent has token \d+, and the model only \d+")

    def test_corpus(self):
        """It is of the vocabulary whose ids are used, not of the model that reads them."""
        corpus = self.path("talk.corpus")
        p = self.run_pal("corpus", MODEL, "-q", "-f", self.path("talk.txt"), "-o", corpus)
        self.assertEqual((p.returncode, p.stderr), (0, b""))
        args = ("--workloads", self.folder.name, "--replay", "--draft", f"suffix:{corpus}",
                "--pairs", "1")
        e = self.map(TRAINED, *args, "--tokenizer", MODEL)
        source, = e["runs"][0]["drafted"][0]["sources"]
        self.assertGreater(source["right"], 0)
        p = self.run_pal("map", TRAINED, *args, "-q")
        self.assertEqual((p.returncode, p.stdout), (1, b""))
        self.assertIn("another vocabulary", p.stderr.decode())

    def test_tampered_with(self):
        """Each change is sealed again: it is the samples that do not support it."""
        good = self.talk("--draft", "none", "--draft", "ngram", "--temp", "0", "--ignore-eos")

        def faster(e):
            pair = e["runs"][0]["drafted"][1]["pairs"][0]
            pair["turns"] = re.sub(r"\d+$", "1", pair["turns"])

        def different(e):
            e["runs"][0]["drafted"][1]["pairs"][1]["output"] = "0123456789abcdef"

        def free(e):
            e["runs"][0]["drafted"][0]["pairs"][0]["turns"] = "5 5 1 4 4 1000;5 5 1 4 4 1000"

        for change, message in (
                (faster, "figures: .*, talk, greedy, ngram"),
                (different, "one thing, and the turns another"),
                (free, "talk, greedy, none: pair 1: turn 1 is not possible"),
                (lambda e: e["figures"][1].update(verdict="costs"
                                                  if e["figures"][1]["verdict"] == "pays"
                                                  else "pays"), "figures: .*ngram"),
                (lambda e: e["runs"].pop(), "runs: 1 are wanted"),
                (lambda e: e["runs"][0]["plain"].pop(), "as many pairs"),
                (lambda e: e.update(format="palimpsest-map-2"), "no evidence of")):
            e = copy.deepcopy(good)
            change(e)
            e["sum"] = sum_of(e)
            self.refused(e, message)
        e = copy.deepcopy(good)
        e["machine"]["cpu"] = "a better one"
        self.refused(e, "changed after it was written")

    def refused(self, evidence, message):
        with open(self.path("bad.json"), "w", encoding="utf-8") as f:
            f.write(dumps(evidence))
        p = self.run_pal("check", self.path("bad.json"))
        text = p.stderr.decode()
        self.assertEqual((p.returncode, p.stdout), (1, b""), text)
        self.assertRegex(text, r"\Apal: .*bad\.json: .*" + message + r".*\n\Z")

    def test_report(self):
        e = self.talk("--report", self.path("e.html"), "--draft", "ngram", "--draft", "none")
        with open(self.path("e.html"), encoding="utf-8") as f:
            page = f.read()
        self.assertEqual(page.count('<table class="heat">'), 2)
        self.assertEqual(page.count("<td class=\"c"), len(e["figures"]))
        self.assertEqual(page.count("<tr>"), page.count("</tr>"))
        self.assertNotRegex(page, r"<script|https?://|src=|<link")
        self.assertFalse(re.search(r"\bnan\b|\binf\b", page))
        self.assertIn(e["model"]["hash"], page)
        self.assertIn("prefers-color-scheme:dark", page)

    def test_json(self):
        p = self.run_pal("map", MODEL, "--workloads", self.folder.name, "--pairs", "1", "-q",
                         "--draft", "none", "--json")
        with open(self.path("j.json"), "wb") as f:
            f.write(p.stdout)
        self.assertEqual(self.run_pal("check", self.path("j.json")).returncode, 0)

    def test_wrong_usage(self):
        with open(self.path("broken"), "w", encoding="utf-8") as f:
            f.write("hello\n")
        os.mkdir(self.path("empty"))
        os.mkdir(self.path("wrong"))
        os.rename(self.path("broken"), self.path("wrong/broken.txt"))
        for args, message in (
                (["--workloads", "/nowhere"], "/nowhere: .*see --workloads"),
                (["--workloads", self.path("empty")], r"no \.txt file"),
                (["--workloads", self.path("wrong")], "broken: part 1 does not begin"),
                (["--workload", "nothing"], r"nothing\.txt"),
                (["--draft", "ngram", "--draft", "ngram"], "--draft ngram is given twice"),
                (["--draft", "nothing"], "nothing"),
                (["--isa", "abacus"], "abacus"),
                (["--pairs", "0"], "--pairs"),
                (["--tokenizer", "/nowhere"], "/nowhere")):
            p = self.run_pal("map", MODEL, "--workloads", self.folder.name, "-q", *args)
            self.assertEqual((p.returncode, p.stdout), (1, b""), args)
            self.assertRegex(p.stderr.decode(), r"\Apal: .*" + message)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[5:]], testRunner=TapRunner)
