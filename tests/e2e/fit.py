#!/usr/bin/python3
"""Drives pal fit as a user would, and prints TAP.

fit.py PAL MODEL TASKS [unittest arguments]
"""
import json
import os
import random
import resource
import subprocess
import sys
import tempfile
import unittest

from tap import TapRunner, sanitized

PAL, MODEL, TASKS = (os.path.abspath(a) for a in sys.argv[1:4])
WORDS = ("river stone window engine report letter garden market winter number signal copper "
         "history question answer library station measure colour").split()


def prose(n_words, seed=1):
    pick = random.Random(seed)
    lines = [" ".join(pick.choice(WORDS) for _ in range(12)) for _ in range(n_words // 12)]
    return ".\n".join(lines) + ".\n"


class Fit(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.text = self.path("text.txt")
        with open(self.text, "w", encoding="utf-8") as f:
            f.write(prose(2400))

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def pal(self, *args, **more):
        return subprocess.run([PAL, *map(str, args)], capture_output=True, timeout=300,
                              check=False, **more)

    def good(self, *args, **more):
        p = self.pal(*args, **more)
        self.assertEqual(p.returncode, 0, p.stderr.decode("utf-8", "replace"))
        return p.stdout.decode()

    def fails(self, text, *args, **more):
        """Exit code 1, one line that has the text, no side-car and nothing beside it."""
        before = sorted(os.listdir(self.folder.name))
        p = self.pal("fit", MODEL, *args, **more)
        message = p.stderr.decode("utf-8", "replace")
        self.assertEqual(p.returncode, 1, message)
        self.assertRegex(message, r"^pal: .*" + text)
        self.assertEqual(message.count("\n"), 1)
        self.assertEqual(sorted(os.listdir(self.folder.name)), before)

    def test_report(self):
        out = self.good("fit", MODEL, "-f", self.text, "-o", self.path("a.gguf"), "--tokens", 6000)
        self.assertIn("the right chunk is first in", out)
        self.assertRegex(out, r"(?m)^\* m = \d+ ")
        self.assertIn("palimpsest-side", self.good("inspect", self.path("a.gguf")))

    def test_json(self):
        side = self.path("a.gguf")
        report = json.loads(self.good("fit", MODEL, "-f", self.text, "-o", side, "--tokens", 6000,
                                      "--layer", 2, "--json"))
        self.assertEqual(report["layer"], 2)
        self.assertGreaterEqual(report["tokens"], 6000)
        self.assertGreater(report["select"]["questions"], 0)
        # K and V of layer m are linear in its state.
        first = [e for e in report["errors"] if e["layer"] == 2]
        self.assertTrue(first and all(e["k"] < 0.01 and e["v"] < 0.01 for e in first))
        meta = json.loads(self.good("inspect", side, "--json"))
        self.assertIn(report["model"]["hash"].lower().removeprefix("0x"),
                      hex(meta_value(meta, "palimpsest.model_hash")))

    def test_the_same_again(self):
        for name, threads in (("a.gguf", 1), ("b.gguf", 3)):
            with open(self.text, "rb") as f:  # from standard input
                self.good("fit", MODEL, "-o", self.path(name), "--tokens", 6000, "-t", threads,
                          stdin=f)
        with open(self.path("a.gguf"), "rb") as a, open(self.path("b.gguf"), "rb") as b:
            self.assertEqual(a.read(), b.read())

    def test_tasks(self):
        report = json.loads(self.good("fit", MODEL, "-f", self.text, "-o", self.path("a.gguf"),
                                      "--tokens", 6000, "--tasks", TASKS, "--questions", 5,
                                      "--json"))
        self.assertGreater(report["select"]["questions"], 100)
        self.assertGreater(report["select_later"]["questions"], 50)
        # An untrained model recalls nothing, but each m was asked.
        recall = report["recall"]
        self.assertEqual([r["m"] for r in recall["project"]],
                         sorted({e["m"] for e in report["errors"]}))
        for asked in [recall["recompute"], *recall["project"]]:
            self.assertEqual(asked["questions"], 8)  # two of each kind
            self.assertLess(asked["right"], 4)
        self.assertEqual(sorted(os.listdir(self.folder.name)), ["a.gguf", "text.txt"])
        out = self.good("fit", MODEL, "-f", self.text, "-o", self.path("a.gguf"), "--tokens", 6000,
                        "--tasks", TASKS, "--questions", 4, "--layer", 3)
        self.assertRegex(out, r"(?m)^\* m = 3 +recall 0\.\d+  3: ")
        self.assertIn("of 4 questions", out)
        self.fails("--tasks needs", "-o", self.path("b.gguf"), "--tasks", TASKS)
        self.fails("nothing.json: No such file", "-f", self.text, "-o", self.path("b.gguf"),
                   "--tasks", self.path("nothing.json"))

    def test_proposer(self):
        """The model as its own proposer; a copy is the same proposer, another model is not."""
        side, other = self.path("p.gguf"), self.path("other.gguf")
        args = ("-f", self.text, "-o", side, "--tokens", 6000, "--proposer", MODEL)
        report = json.loads(self.good("fit", MODEL, *args, "--json"))
        layers = {e["m"] for e in report["errors"]}
        self.assertEqual(len(layers), 2)  # the input of the last layer, and its output
        own = [e for e in report["errors"] if e["m"] == e["layer"] == min(layers)]
        self.assertTrue(own and own[0]["k"] < 0.01 and own[0]["v"] < 0.01)
        self.assertEqual(min(e["layer"] for e in report["errors"]), 0)
        self.assertEqual(report["proposer"]["hash"], report["model"]["hash"])
        self.assertIn("all layers are projected from state", self.good("fit", MODEL, *args))
        run = ("run", MODEL, "-p", prose(60), "-n", 4, "--ignore-eos", "--kv", "restored",
               "--window", 64, "--restore", "project", "--side", side, "--json")
        memory = json.loads(self.good(*run, "--proposer", MODEL))["memory"]
        self.assertGreater(memory["filled"]["project"], 0)
        self.assertEqual(memory["fallbacks"], 0)
        mkmodel = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../tools/mkmodel.py")
        for vocab in (512, 300):
            subprocess.run([sys.executable, mkmodel, other, "--type", "q8_0", "--seed", "7",
                            "--vocab", str(vocab)], check=True, capture_output=True)
            p = self.pal(*run, "--proposer", other)
            self.assertEqual(p.returncode, 1)
            self.assertIn(b"another proposer" if vocab == 512 else b"cannot be the proposer",
                          p.stderr)
        self.assertIn(b"which is not given", self.pal(*run).stderr)
        self.fails("cannot be the proposer", *args[:2], "-o", self.path("b.gguf"), "--proposer",
                   other)
        self.fails("would write over", "-f", self.text, "-o", other, "--proposer", other)

    def test_refused(self):
        out = self.path("b.gguf")
        self.fails("-o FILE", "-f", self.text)
        self.fails("would write over", "-f", self.text, "-o", self.text)
        self.fails("No such file", "-f", self.path("nothing"), "-o", out)
        self.fails("too little text", "-o", out, input=b"hello")
        self.fails("too little text", "-o", out, input=prose(600).encode())
        self.fails("not UTF-8: byte 0xff at offset 3", "-o", out, input=b"abc\xff" * 9)
        self.fails("starts at layer 1 to", "-f", self.text, "-o", out, "--layer", 1000)
        self.fails("no/b.gguf cannot be written: No such file", "-f", self.text, "-o",
                   self.path("no/b.gguf"), "--tokens", 6000)
        self.fails("is no regular file", "-f", self.text, "-o", "/dev/null", "--tokens", 6000)

    def test_no_room(self):
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        self.fails("(cannot be written|writing .*): File too large", "-f", self.text, "-o", self.path("b.gguf"),
                   "--tokens", 6000, preexec_fn=limit)

    @unittest.skipIf(sanitized(PAL), "sanitizers keep freed memory, and 80,000 tokens take minutes")
    def test_memory_does_not_grow(self):
        """Three times the text, the same peak; the states of one layer alone would be 10 MB more."""
        with open(self.text, "w", encoding="utf-8") as f:
            f.write(prose(16000))
        peaks = [json.loads(self.good("fit", MODEL, "-f", self.text, "-o", self.path("a.gguf"),
                                      "--tokens", n, "--json"))["rss_bytes"]
                 for n in (20000, 60000)]
        self.assertLess(peaks[1] - peaks[0], 4 << 20)


def meta_value(report, key):
    """A value of the metadata in what `pal inspect --json` prints, wherever it is."""
    meta = report["metadata"]
    found = meta[key] if isinstance(meta, dict) else next(e for e in meta if e["key"] == key)
    return int(found["value"] if isinstance(found, dict) else found)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[4:], testRunner=TapRunner)
