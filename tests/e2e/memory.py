#!/usr/bin/python3
"""Sessions inside a K/V budget, as a user meets them; prints TAP.

memory.py PAL [unittest arguments]

The models are random (tests/tools/mkmodel.py): what they say does not matter, but that it is the
same as with full K/V while nothing is evicted, that figures are right and that mistakes are told.
"""
import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile
import unittest

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))

import mkmodel  # noqa: E402
from tap import TapRunner  # noqa: E402

PAL = os.path.abspath(sys.argv[1])
BOUNDED = ("window", "restored")
SINK, WINDOW, SPAN = 4, 256, 32 + 2 * 8  # defaults; positions of a chunk with its margins
IDS = [(i * 37 + i * i % 11) % 256 for i in range(1500)]


def pal(*args, stdin="", **more):
    return subprocess.run([PAL, *map(str, args)], input=stdin.encode(), capture_output=True,
                          timeout=300, check=False, **more)


class Case(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        shape = {"dim": 128, "heads": 4, "kv_heads": 2, "head_dim": 32, "ff": 256, "vocab": 300,
                 "type": "q8_0"}
        cls.model = cls.path("plain.gguf")
        mkmodel.write(cls.model, mkmodel.Spec(**shape))
        cls.sliding = cls.path("sliding.gguf")
        mkmodel.write(cls.sliding, mkmodel.Spec(arch="gemma3", layers=6, **shape))

    @classmethod
    def path(cls, name):
        return os.path.join(cls.folder.name, name)

    def good(self, *args, **more):
        p = pal(*args, **more)
        self.assertEqual(p.returncode, 0, p.stderr.decode())
        return p

    def fails(self, text, *args, model=None, n=400):
        """One line that has the text, and nothing written."""
        p = pal("run", model or self.model, "--ids", "-n", 3, *args, stdin=ids(n))
        message = p.stderr.decode()
        self.assertEqual((p.returncode, p.stdout), (1, b""), message)
        self.assertRegex(message, f"^pal: .*{text}.*\n$")
        return message

    def report(self, n, *args, model=None):
        return json.loads(self.good("run", model or self.model, "--ids", "-n", 8, "--ignore-eos",
                                    "--json", "-q", *args, stdin=ids(n)).stdout)


def ids(n):
    return " ".join(map(str, IDS[:n]))


class Policies(Case):
    def test_the_same_until_something_is_evicted(self):
        for n in (1, 64, SINK + WINDOW - 8):
            full = self.report(n)["ids"]
            for kv in BOUNDED:
                r = self.report(n, "--kv", kv)
                self.assertEqual(r["ids"], full, (kv, n))
                self.assertEqual((r["memory"]["evicted"], r["memory"]["events"]), (0, 0))

    def test_what_the_report_counts(self):
        for kv in BOUNDED:
            r = self.report(1000, "--kv", kv)
            m = r["memory"]
            self.assertEqual(r["parameters"]["kv"], kv)
            self.assertEqual(m["evicted"], 1008 - SINK - WINDOW)
            self.assertEqual(m["resident"], 1008 - m["evicted"] + m["restored"])
            self.assertLessEqual(m["restored"], 4 * SPAN)
            self.assertEqual(list(m["filled"]), ["recompute", "spill", "hidden", "project"])
            self.assertEqual((m["fallbacks"], m["note"]), (0, ""))
            self.assertGreater(m["disk_bytes"], 4 * 1000)
            self.assertEqual(m["events"] > 0, kv == "restored")
        self.assertEqual(self.report(1000)["memory"]["evicted"], 0)

    def test_memory_does_not_grow(self):
        for kv in BOUNDED:
            short, long = (self.report(n, "--kv", kv)["memory"] for n in (300, 1500))
            for key in ("kv_bytes", "scratch_bytes"):
                self.assertEqual(short[key], long[key], (kv, key))

    def test_the_same_bits(self):
        for args in (("--window", 64), ("--window", 64, "--restore-prefill")):
            args += ("--kv", "restored")
            out = self.report(1200, *args)
            for more in (("--batch", 7), ("-t", 1), ("-t", 3), ("--isa", "scalar")):
                self.assertEqual(self.report(1200, *args, *more)["ids"], out["ids"], more)

    def test_select(self):
        """Words choose once, before the answer; beside attention they add one chunk at most."""
        args = ("--kv", "restored", "--round-chunks", 3, "--rounds", 2)
        lexical = self.report(1000, *args, "--select", "lexical")["memory"]
        # Nothing was in sight before, and so there is no event that puts it away.
        self.assertEqual((lexical["rounds"], lexical["events"]), (1, 1))
        self.assertEqual(lexical["filled"]["recompute"], 3)
        self.assertEqual(self.report(1000, *args, "--select", "attention")["ids"],
                         self.report(1000, *args)["ids"])
        both = self.report(1000, *args, "--select", "both")["memory"]
        self.assertGreater(both["filled"]["recompute"], 0)
        for select in ("lexical", "both"):
            out = self.report(1000, *args, "--select", select)["ids"]
            for more in (("--batch", 7), ("-t", 3), ("--isa", "scalar")):
                self.assertEqual(self.report(1000, *args, "--select", select, *more)["ids"], out)

    def test_figures(self):
        run = ("run", self.model, "--ids", "-n", 3, "--ignore-eos")
        text = self.good(*run, "--kv", "window", stdin=ids(1000)).stderr.decode()
        self.assertRegex(text, r"K/V [^;]+; evicted 743, restored 0 chunks(; drafted .*)?\n$")
        text = self.good(*run, "--kv", "restored", stdin=ids(1000)).stderr.decode()
        self.assertRegex(text, r"K/V [^;]+; evicted 743, restored \d+ chunks(; drafted .*)?\n$")
        self.assertNotIn("evicted", self.good(*run, stdin=ids(1000)).stderr.decode())

    def test_fallbacks_are_said(self):
        args = ("--kv", "restored", "--window", 64, "--restore", "spill", "--disk-budget", "20K")
        r = self.report(1200, *args)["memory"]
        self.assertGreater(r["dropped"], 0)
        self.assertEqual(r["filled"]["spill"] + r["filled"]["recompute"],
                         sum(r["filled"].values()))
        self.assertEqual(r["fallbacks"], r["filled"]["recompute"])
        if r["fallbacks"]:
            self.assertIn("recomputed", r["note"])
            p = self.good("run", self.model, "--ids", "-n", 8, "--ignore-eos", *args,
                          stdin=ids(1200))
            self.assertIn("not by spill", p.stderr.decode())
        r = self.report(1200, *args[:-2])["memory"]
        self.assertEqual((r["dropped"], r["fallbacks"], r["filled"]["recompute"]), (0, 0, 0))

    def test_sliding_layers(self):
        full = self.report(1000, model=self.sliding)
        for kv in BOUNDED:
            exact = self.report(1000, "--kv", kv, "--exact-full-layers", model=self.sliding)
            self.assertEqual((exact["ids"], exact["memory"]["kv_bytes"]),
                             (full["ids"], full["memory"]["kv_bytes"]))
            bounded = self.report(1000, "--kv", kv, model=self.sliding)
            self.assertGreater(bounded["memory"]["evicted"], 0)
            self.assertLess(bounded["memory"]["kv_bytes"], full["memory"]["kv_bytes"])
            self.fails("exact full layers: qwen3 has no sliding layers", "--kv", kv,
                       "--exact-full-layers")


class Budgets(Case):
    def test_the_least_is_named_and_works(self):
        for kv in BOUNDED:
            for more in ((), ("--window", 200), ("--sink", 70), ("--kv-type", "f32")):
                args = ("--kv", kv, *more, "--kv-budget")
                message = self.fails("the least that works with", *args, "1K")
                least = int(message.split()[-1])
                self.fails(f"the least that works with .* is {least}$", *args, least - 1)
                r = self.report(1000, *args, least)
                self.assertLessEqual(r["memory"]["kv_bytes"], least)

    def test_a_budget_is_kept_and_used(self):
        for kv in BOUNDED:
            for text, n in (("1M", 1 << 20), ("3000K", 3000 << 10)):
                used = self.report(400, "--kv", kv, "--kv-budget", text)["memory"]["kv_bytes"]
                self.assertLessEqual(used, n)
                self.assertGreater(used, 0.8 * n)

    def test_bad_values(self):
        kv = ("--kv", "restored")
        for option in ("--kv-budget", "--disk-budget"):
            for value in ("", "x", "0", "-1", "1X", "1MM", "nan", "1e30"):
                self.fails(f"{option} .*bytes are possible", *kv, option, value)
        for option, values in (("--sink", "0 65537 x"), ("--window", "0 -1"),
                               ("--restored", "0 33"), ("--left", "0 1025"),
                               ("--rounds", "0 65"), ("--round-chunks", "0 33")):
            for value in values.split():
                self.fails(f"{option} {value}: must be a whole number from 1 to", *kv, option,
                           value)
        for option in ("--kv", "--positions", "--restore", "--select", "--spill-type"):
            self.fails(f"{option} no: must be one of", option, "no")
        for option, value in (("--window", 64), ("--restored", 2), ("--kv-budget", "1M")):
            self.fails("need the policy window or restored", option, value)

    def test_bench(self):
        r = json.loads(self.good("bench", self.model, "-p", 16, "-n", 2, "--depths", "300,900",
                                 "--kv", "restored", "--window", 64, "--json", "-q").stdout)
        self.assertEqual((r["kv"], [d["depth"] for d in r["depths"]]), ("restored", [300, 900]))
        # 4 layers, 2 heads, K and V of 32 int16 with a scale each: the window, sinks and chunks.
        row = 4 * 2 * 2 * (32 * 2 + 4)
        for d in r["depths"]:
            self.assertGreaterEqual(d["token_kv_bytes"], (64 + SINK) * row)
            self.assertLessEqual(d["token_kv_bytes"], (64 + SINK + 4 * SPAN) * row)
            self.assertGreater(d["restore_s"], 0)


class Files(Case):
    def test_folder_that_is_not_there(self):
        for folder in ("/nonexistent", self.model):
            for kv in BOUNDED:
                self.fails(f"cannot make a file in {folder}: ", "--kv", kv, "--disk-dir", folder)

    def test_folder_that_cannot_be_written(self):
        self.fails("cannot make a file in /proc: ", "--kv", "window", "--disk-dir", "/proc")

    def test_full_disk(self):
        folder = self.path("small")
        os.mkdir(folder)
        mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "none", folder],
                                 capture_output=True, check=False)
        if mounted.returncode:
            self.skipTest("no file system can be mounted here")
        try:
            self.fails("No space left on device", "--kv", "restored", "--disk-dir", folder,
                       n=1500)
            self.assertEqual(os.listdir(folder), [])
        finally:
            subprocess.run(["umount", folder], check=True)

    def test_files_have_no_names(self):
        folder = self.path("files")
        os.mkdir(folder)
        self.report(1000, "--kv", "restored", "--restore", "spill", "--disk-dir", folder)
        self.assertEqual(os.listdir(folder), [])


class Chat(Case):
    def test_turns_beyond_the_window(self):
        lines = [f"This is line {i} of a long conversation." for i in range(12)]
        for kv in BOUNDED:
            p = self.good("chat", self.model, "--template", "chatml", "-n", 8, "--temp", 0, "--kv",
                          kv, "--window", 64, stdin="\n".join([*lines, "/stats", "/reset", "Hello",
                                                               "/stats"]) + "\n")
            first, second = [line for line in p.stderr.decode().splitlines()
                             if line.startswith("memory")]
            self.assertRegex(first, r"; evicted [1-9]\d*, restored \d+ chunks$")
            self.assertRegex(second, r"; evicted 0, restored \d+ chunks$")

    def test_ctx_still_ends_it(self):
        p = pal("chat", self.model, "--template", "chatml", "--kv", "window", "--ctx", 64,
                stdin="word " * 100 + "\n")
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"no room is left in the context of 64", p.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[2:]], testRunner=TapRunner)
