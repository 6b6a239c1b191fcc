#!/usr/bin/python3
"""Drives pal as a user would, and prints TAP.

pal.py PAL MODEL MANPAGE [unittest arguments, as Run.test_ids]
"""
import array
import json
import os
import re
import signal
import struct
import subprocess
import sys
import tempfile
import unittest

from tap import TapRunner
from terminal import Terminal

PAL, MODEL, MANPAGE = (os.path.abspath(a) for a in sys.argv[1:4])
COMMANDS = ("run", "chat", "tokenize", "logits", "inspect", "bench", "fit", "recall", "check", "serve")
TASKS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../training/tasks.json")
NEEDS = {"recall": ("--tasks", TASKS, "--filler", TASKS)}
PROMPT = "Hello, there. The answer is"


def pal(*args, stdin=b"", **more):
    if isinstance(stdin, str):
        stdin = stdin.encode()
    return subprocess.run([PAL, *map(str, args)], input=stdin, capture_output=True, timeout=300,
                          check=False, **more)


def gguf_string(text):
    return struct.pack("<Q", len(text)) + text


def vocabulary_only(path, bos=3):
    """A GGUF with a byte-level vocabulary of 'a', 'b', 'ab' and <s>, and no tensors."""
    strings = [b"a", b"b", b"ab", b"<s>"]
    array_of = lambda kind, items: struct.pack("<IIQ", 9, kind, len(items)) + b"".join(items)
    keys = {
        b"general.architecture": struct.pack("<I", 8) + gguf_string(b"qwen3"),
        b"tokenizer.ggml.model": struct.pack("<I", 8) + gguf_string(b"gpt2"),
        b"tokenizer.ggml.pre": struct.pack("<I", 8) + gguf_string(b"gpt-2"),
        b"tokenizer.ggml.tokens": array_of(8, [gguf_string(s) for s in strings]),
        b"tokenizer.ggml.token_type": array_of(5, [struct.pack("<i", t) for t in (1, 1, 1, 3)]),
        b"tokenizer.ggml.merges": array_of(8, [gguf_string(b"a b")]),
        b"tokenizer.ggml.bos_token_id": struct.pack("<II", 4, bos),
    }
    with open(path, "wb") as f:
        f.write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(keys)))
        f.write(b"".join(gguf_string(k) + v for k, v in keys.items()))


class Case(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def good(self, *args, **more):
        """Output of a call that must succeed."""
        p = pal(*args, **more)
        self.assertEqual(p.returncode, 0, p.stderr.decode("utf-8", "replace"))
        return p.stdout

    def fails(self, text, *args, written=b"", **more):
        """The call ends with exit code 1, one line that has the text, and writes nothing."""
        p = pal(*args, **more)
        message = p.stderr.decode("utf-8", "replace")
        self.assertEqual(p.returncode, 1, message)
        self.assertTrue(message.startswith("pal: "), message)
        self.assertEqual(message.count("\n"), 1, message)
        self.assertRegex(message, text)
        self.assertEqual(p.stdout, written)

    def ids(self, text=PROMPT):
        return [int(line) for line in self.good("tokenize", MODEL, stdin=text).split()]

    def n_vocab(self):
        return json.loads(self.good("run", MODEL, "-p", "x", "-n", "1", "--json"))["model"][
            "n_vocab"]


class Usage(Case):
    def test_version(self):
        self.assertRegex(self.good("--version"), rb"^pal \d+\.\d+\.\d+\n$")

    def test_overview_names_every_command(self):
        text = self.good("help").decode()
        for command in COMMANDS:
            self.assertRegex(text, rf"(?m)^  {command} ")
        self.assertEqual(self.good("--help"), self.good("help"))
        p = pal()
        self.assertEqual((p.returncode, p.stdout), (1, b""))
        self.assertEqual(p.stderr.decode(), text)

    def test_help_of_a_command(self):
        for command in COMMANDS:
            text = self.good("help", command)
            self.assertTrue(text.startswith(f"usage: pal {command} {'FILE' if command == 'check' else 'MODEL'}".encode()))
            self.assertEqual(self.good(command, "--help"), text)
        self.fails("unknown command 'nothing'.*pal help", "help", "nothing")

    def test_manual_page_has_every_option(self):
        with open(MANPAGE, encoding="utf-8") as f:
            page = f.read().replace("\\-", "-")
        for command in COMMANDS:
            help_text = self.good("help", command).decode().split("options:", 1)[1]
            options = re.findall(r"(?m)^ {2,6}(-\w|--[\w-]+)", help_text)
            options += re.findall(r"(?m)^  -\w, (--[\w-]+)", help_text)
            if command not in ("tokenize", "check"):
                self.assertTrue(options, command)
            for option in options:
                self.assertRegex(page, rf"(?m)(^|[\s\"]){re.escape(option)}(?![\w-])",
                                 f"{option} of {command}")

    def test_wrong_usage(self):
        self.fails("unknown command 'walk' .*pal help", "walk", MODEL)
        self.fails("model file is missing.*pal help run", "run")
        self.fails("unknown or ambiguous option --bogus.*pal help logits", "logits", MODEL,
                   "--bogus")
        self.fails("option -n needs a value", "run", MODEL, "-n")
        self.fails("unexpected argument 'b'|unexpected argument 'a'", "run", MODEL, "a", "b")
        for value in ("12x", "-1", "1e3", "", "99999999999999999999"):
            self.fails("-n .*must be a whole number from 0 to 16777216", "run", MODEL, "-n", value)
        for value in ("nan", "-0.1", "x", "1001"):
            self.fails("--temp .*must be a number from 0 to 1000", "run", MODEL, "--temp", value)
        self.fails("--threads 0: must be .* 1 to 256", "logits", MODEL, "-t", 0)
        self.fails("--batch 513: must be .* 1 to 512", "logits", MODEL, "--batch", 513)
        self.fails("--isa sse9: must be one of scalar", "logits", MODEL, "--isa", "sse9")
        self.fails("--kv-type q4", "logits", MODEL, "--kv-type", "q4")

    def test_what_this_machine_has_not(self):
        other = "neon" if os.uname().machine == "x86_64" else "avx2"
        self.fails(other, "run", MODEL, "-p", "x", "--isa", other)


class Files(Case):
    def test_no_such_file(self):
        for command in COMMANDS:
            self.fails("nothing.gguf: No such file", command, self.path("nothing.gguf"),
                       *NEEDS.get(command, ()))

    def test_not_a_model(self):
        for content in (b"", b"GGUF", b"hello, this is no model at all" * 10):
            with open(self.path("bad.gguf"), "wb") as f:
                f.write(content)
            for command in COMMANDS:
                self.fails("bad.gguf: ", command, self.path("bad.gguf"),
                           *NEEDS.get(command, ()), stdin=b"1")
        self.fails("not a regular file|Is a directory", "run", "/tmp", "-p", "x")

    def test_truncated_model(self):
        with open(MODEL, "rb") as f:
            whole = f.read()
        for part in (0.001, 0.3, 0.999):
            with open(self.path("cut.gguf"), "wb") as f:
                f.write(whole[:int(len(whole) * part)])
            for command in ("run", "chat", "logits", "inspect", "bench"):
                self.fails("cut.gguf: ", command, self.path("cut.gguf"), stdin=b"1")

    def test_vocabulary_only(self):
        vocabulary_only(self.path("v.gguf"))
        self.assertEqual(self.good("tokenize", self.path("v.gguf"), stdin=b"abba<s>"),
                         b"2\n1\n0\n3\n")
        self.fails("v.gguf: ", "run", self.path("v.gguf"), "-p", "ab")
        self.assertIn(b"not known", self.good("inspect", self.path("v.gguf")))
        vocabulary_only(self.path("v.gguf"), bos=4)
        self.fails("bos_token_id.* 4.*0 to 3|bos_token_id.*4", "tokenize", self.path("v.gguf"))


class Tokenize(Case):
    def test_ids_one_a_line(self):
        out = self.good("tokenize", MODEL, stdin=PROMPT)
        self.assertRegex(out, rb"^(\d+\n)+$")

    def test_any_bytes_and_none(self):
        self.assertEqual(self.good("tokenize", MODEL), b"")
        self.assertTrue(self.good("tokenize", MODEL, stdin=b"\xff\x00\xfe"))

    def test_full_disk(self):
        with open("/dev/full", "wb") as full:
            p = subprocess.run([PAL, "tokenize", MODEL], input=b"hello", stdout=full,
                               stderr=subprocess.PIPE, check=False)
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"pal: cannot write to standard output: No space left", p.stderr)

    def test_closed_pipe(self):
        """However the system tells that nobody reads: no message, no success."""
        for restore in (True, False):
            read, write = os.pipe()
            os.close(read)
            p = subprocess.run([PAL, "tokenize", MODEL], input=b"hello", stdout=write,
                               stderr=subprocess.PIPE, check=False, restore_signals=restore)
            os.close(write)
            self.assertIn(p.returncode, (-signal.SIGPIPE,) if restore else (1,))
            self.assertEqual(p.stderr, b"")


class Logits(Case):
    def test_rows(self):
        ids, n_vocab = self.ids(), self.n_vocab()
        text = " ".join(map(str, ids))
        out = self.good("logits", MODEL, stdin=text)
        self.assertEqual(len(out), 4 * len(ids) * n_vocab)
        row = array.array("f", out[-4 * n_vocab:])
        best = max(range(n_vocab), key=lambda i: (row[i], -i))
        first = self.good("run", MODEL, "--ids", "-n", 1, "-q", stdin=text)
        self.assertEqual(int(first), best)

    def test_the_same_bits(self):
        text = " ".join(map(str, self.ids() * 5))
        out = self.good("logits", MODEL, stdin=text)
        for args in (("--batch", 1), ("--batch", 7), ("-t", 1), ("-t", 3), ("--isa", "scalar")):
            self.assertTrue(self.good("logits", MODEL, *args, stdin=text) == out, args)
        self.assertFalse(self.good("logits", MODEL, "--kv-type", "f32", stdin=text) == out)

    def test_cache(self):
        text, cache = " ".join(map(str, self.ids())), self.path("cache")
        out = self.good("logits", MODEL, stdin=text)
        def run(note):
            p = pal("logits", MODEL, "--cache-dir", cache, stdin=text)
            self.assertTrue(p.returncode == 0 and p.stdout == out, p.stderr)
            self.assertRegex(p.stderr.decode(), note)
        run("^$")
        run("^$")
        [name] = os.listdir(cache)
        stem = re.escape(os.path.splitext(os.path.basename(MODEL))[0])
        self.assertRegex(name, f"^{stem}-[0-9a-f]{{16}}\\.tiles$")
        model = lambda: json.loads(self.good("run", MODEL, "-p", "x", "-n", 1, "--json",
                                             "--cache-dir", cache))["model"]
        self.assertTrue(model()["from_cache"])
        with open(os.path.join(cache, name), "r+b") as f:
            f.seek(os.path.getsize(f.name) // 2)
            f.write(b"damage")
        run("^pal: .*damaged in 1 of its [0-9]+ pieces: it was written again\n$")
        run("^$")
        p = pal("logits", MODEL, "--cache-dir", "/dev/null", stdin=text)
        self.assertEqual((p.returncode, p.stdout), (0, out))
        self.assertRegex(p.stderr.decode(), "^pal: /dev/null/.* cannot be written: Not a directory: "
                                            "the next start will repack, too\n$")

    def test_no_ids(self):
        self.assertEqual(self.good("logits", MODEL, stdin=b" \n"), b"")

    def test_wrong_ids(self):
        n = self.n_vocab()
        self.fails(f"token id 3, {n}, is outside the vocabulary \\(0 to {n - 1}\\)", "logits",
                   MODEL, stdin=f"1 2 {n} 3")
        self.fails("token id 2, -1, is outside", "logits", MODEL, stdin="1 -1")
        self.fails("token id 1, 'x', is not a number", "logits", MODEL, stdin="x 1")
        self.fails("token id 2, 18446744073709551617, is outside", "run", MODEL, "--ids",
                   stdin="1 18446744073709551617")


class Run(Case):
    def report(self, *args, **more):
        return json.loads(self.good("run", MODEL, "--json", "-n", 12, *args, **more))

    def test_text_from_everywhere(self):
        out = self.good("run", MODEL, "-p", PROMPT, "-n", 8)
        with open(self.path("prompt"), "w", encoding="utf-8") as f:
            f.write(PROMPT)
        self.assertEqual(self.good("run", MODEL, "-f", self.path("prompt"), "-n", 8), out)
        self.assertEqual(self.good("run", MODEL, "-n", 8, stdin=PROMPT), out)
        self.assertTrue(out.endswith(b"\n"))

    def test_ids(self):
        ids = self.ids()
        out = self.good("run", MODEL, "--ids", "-n", 12, "--ignore-eos",
                        stdin="\n".join(map(str, ids)))
        self.assertRegex(out, rb"^(\d+\n){12}$")
        report = self.report("-p", PROMPT, "--ignore-eos")
        self.assertEqual(report["prompt_ids"][-len(ids):], ids)
        if report["prompt_ids"] == ids:
            self.assertEqual(report["ids"], [int(i) for i in out.split()])

    def test_report(self):
        r = self.report("-p", PROMPT, "--ignore-eos", "--temp", 0.5, "--seed", 2**64 - 1)
        self.assertEqual(list(r), ["machine", "build", "model", "parameters", "prompt_ids", "ids",
                                   "text", "stop", "timings", "memory", "drafts"])
        self.assertEqual((len(r["ids"]), r["stop"]), (12, "limit"))
        self.assertEqual(r["timings"]["generated_tokens"], 12)
        self.assertEqual(r["timings"]["prompt_tokens"], len(r["prompt_ids"]))
        self.assertEqual(r["parameters"]["sampling"]["seed"], str(2**64 - 1))
        self.assertEqual(r["parameters"]["ctx"], len(r["prompt_ids"]) + 12)
        self.assertRegex(r["model"]["hash"], r"^[0-9a-f]{16}$")
        for key in ("peak_rss_bytes", "weight_bytes", "kv_bytes", "scratch_bytes"):
            self.assertGreater(r["memory"][key], 0)

    def test_drafts_change_nothing(self):
        """Whatever drafts, and whoever decides: the same tokens and the same end."""
        for how in ((), ("--temp", 0.8, "--seed", 3), ("--kv", "restored", "--window", 64)):
            args = ("-p", PROMPT * 20, "-n", 60, *how)
            plain = self.report(*args, "--draft", "none")
            self.assertEqual(plain["drafts"], {"forwards": 60, "drafted": 0, "accepted": 0,
                                               "sources": []})
            for draft in ("auto", "ngram", "suffix", "mix:ngram,suffix", "exit:1",
                          "model:" + MODEL):
                drafted = self.report(*args, "--draft", draft)
                for key in ("ids", "text", "stop"):
                    self.assertEqual(drafted[key], plain[key], (how, draft))
                n = drafted["drafts"]
                self.assertLessEqual(n["accepted"], n["drafted"])
                self.assertEqual(sum(s["drafted"] for s in n["sources"]), n["drafted"])

    def test_drafters_that_cannot_be(self):
        for draft, message in (("magic", "magic"), ("exit:0", "exit:0"), ("exit:99", "fewer than the"),
                               ("model:" + self.path("none.gguf"), "No such file"),
                               ("suffix:" + self.path("none"), "No such file")):
            self.fails(message, "run", MODEL, "-p", "x", "-n", 4, "--draft", draft)
        self.fails("--max-draft", "run", MODEL, "-p", "x", "-n", 4, "--max-draft", 33)

    def test_figures(self):
        p = pal("run", MODEL, "-p", PROMPT, "-n", 4)
        self.assertRegex(p.stderr.decode(), r"^pal: prompt \d+ tokens, .* tok/s; generated \d+, "
                                            r".* tok/s; peak memory .*, K/V .*(; drafted .*)?\n$")
        self.assertEqual(pal("run", MODEL, "-p", PROMPT, "-n", 4, "--quiet").stderr, b"")

    def test_seed_decides(self):
        draw = lambda seed, *args: self.report("-p", PROMPT, "--temp", 1.5, "--seed", seed,
                                               "--ignore-eos", *args)["ids"]
        self.assertEqual(draw(1), draw(1, "-t", 1, "--batch", 1, "--isa", "scalar"))
        self.assertGreater(len({tuple(draw(seed)) for seed in range(4)}), 1)

    def test_top_k_of_one_is_greedy(self):
        greedy = self.report("-p", PROMPT)["ids"]
        self.assertEqual(self.report("-p", PROMPT, "--temp", 2, "--top-k", 1)["ids"], greedy)
        self.assertEqual(self.report("-p", PROMPT, "--temp", 2, "--top-p", 0)["ids"], greedy)
        self.assertEqual(self.report("-p", PROMPT, "--temp", 2, "--min-p", 1)["ids"], greedy)

    def test_repetition_penalty(self):
        ids = self.report("-p", PROMPT, "--repeat-penalty", 100, "--repeat-last", 1000,
                          "--ignore-eos")["ids"]
        self.assertEqual(len(set(ids)), len(ids))

    def test_stop_strings(self):
        text = self.report("-p", PROMPT, "--ignore-eos", "-n", 40)["text"]
        good = [i for i in range(1, len(text) - 2) if "\ufffd" not in text[i:i + 2]]
        self.assertTrue(good, text)
        stop = text[good[-1]:good[-1] + 2]
        r = self.report("-p", PROMPT, "--ignore-eos", "-n", 40, "--stop", "never there",
                        "--stop", stop)
        self.assertEqual((r["stop"], r["text"]), ("string", text[:text.index(stop)]))
        self.fails("stop string 1 has 0 bytes", "run", MODEL, "-p", "x", "--stop", "", "-q")
        self.fails("stop string 1 is not UTF-8", "run", MODEL, "-p", "x", "-q", "--stop", b"\xff".decode(
            "utf-8", "surrogateescape"))

    def test_chat_template(self):
        template = ("--chat", "--template", "chatml")
        plain = self.report(*template, "-p", "hi")["prompt_ids"]
        system = self.report(*template, "--system", "Be brief.", "-p", "hi")["prompt_ids"]
        self.assertEqual(plain, self.ids("<|im_start|>user\nhi<|im_end|>\n"
                                         "<|im_start|>assistant\n"))
        self.assertEqual(system[-len(plain):], plain)
        self.assertGreater(len(system), len(plain))
        # What looks like a special token in a prompt is text.
        end, = self.ids("<|im_end|>")
        said = self.report(*template, "--system", "a<|im_end|>", "-p", "b<|im_end|>")["prompt_ids"]
        self.assertEqual(said.count(end), 2)
        self.fails("nothing.*chatml", "run", MODEL, "--chat", "--template", "nothing", "-p", "x")
        self.fails("need --chat", "run", MODEL, "--system", "x", "-p", "x")

    def test_prompt_that_does_not_fit(self):
        n = len(self.ids())
        self.fails(f"prompt has {n} tokens, the context room for 2", "run", MODEL, "-p", PROMPT,
                   "--ctx", 2)
        r = self.report("-p", PROMPT, "--ctx", n + 3, "-n", 0, "--ignore-eos")
        self.assertEqual((len(r["ids"]), r["stop"]), (3, "limit"))

    def test_bad_prompts(self):
        self.fails("the prompt is empty", "run", MODEL, "-p", "")
        self.fails("the prompt is empty", "run", MODEL, "--ids")
        self.fails("the prompt is not UTF-8: byte 0xff at offset 2", "run", MODEL,
                   stdin=b"ab\xff")
        self.fails("-p and -f exclude", "run", MODEL, "-p", "x", "-f", "y")
        self.fails("--ids excludes", "run", MODEL, "-p", "x", "--ids")
        self.fails("nothing: No such file", "run", MODEL, "-f", self.path("nothing"))


class Inspect(Case):
    def test_text(self):
        text = self.good("inspect", MODEL, "--ctx", 1000).decode()
        for word in ("general.architecture", "token_embd.weight", "memory", "K/V of 1000"):
            self.assertIn(word, text)

    def test_json(self):
        small, large = (json.loads(self.good("inspect", MODEL, "--json", "--ctx", n))
                        for n in (1000, 3000))
        self.assertIn("token_embd.weight", [t["name"] for t in small["tensors"]])
        per_token = small["memory"]["kv_bytes_per_token"]
        grown = large["memory"]["kv_bytes"] - small["memory"]["kv_bytes"]
        self.assertAlmostEqual(grown / 2000 / per_token, 1, delta=0.1)
        f16, f32 = (json.loads(self.good("inspect", MODEL, "--json", "--kv-type", kind))
                    for kind in ("f16", "f32"))
        self.assertEqual(f32["memory"]["kv_bytes_per_token"],
                         2 * f16["memory"]["kv_bytes_per_token"])
        self.assertGreater(per_token, f16["memory"]["kv_bytes_per_token"])
        run = json.loads(self.good("run", MODEL, "-p", "x", "-n", 1, "--ctx", 1000, "--json"))
        for key in ("weight_bytes", "kv_bytes", "scratch_bytes"):
            self.assertEqual(run["memory"][key], small["memory"][key])


class Bench(Case):
    def test_json(self):
        r = json.loads(self.good("bench", MODEL, "-p", 40, "-n", 4, "-t", 1, "--json"))
        self.assertEqual(list(r)[:7], ["engine", "threads", "prefill_tokens", "prefill_tok_s",
                                       "decode_tokens", "decode_tok_s", "verify_ms"])
        self.assertEqual((r["engine"], r["threads"], r["prefill_tokens"], r["decode_tokens"]),
                         ("palimpsest", 1, 40, 4))
        self.assertEqual(list(r["verify_ms"]), ["1", "2", "3", "4", "6", "8", "12", "16", "24", "32"])
        values = [r["prefill_tok_s"], r["decode_tok_s"], r["load_s"], r["rss_bytes"],
                  r["kv_bytes"], r["token_bytes"], r["token_kv_bytes"], r["read_bytes_s"], r["read_share"],
                  *r["verify_ms"].values()]
        self.assertTrue(all(v > 0 for v in values), values)
        self.assertEqual(r["depths"], [])
        # What the reading is measured with does not count as the model's memory.
        self.assertLess(r["rss_bytes"], 400e6)
        self.assertLessEqual(r["token_bytes"], r["model"]["weight_bytes"])
        self.assertAlmostEqual(r["read_share"],
                               r["token_bytes"] * r["decode_tok_s"] / r["read_bytes_s"], 6)
        self.assertAlmostEqual(r["read_share_kv"], (r["token_bytes"] + r["token_kv_bytes"])
                               * r["decode_tok_s"] / r["read_bytes_s"], 6)

    def test_depths(self):
        args = ("bench", MODEL, "-p", 8, "-n", 2, "-t", 1)
        r = json.loads(self.good(*args, "--depths", "5,64", "--json"))
        self.assertEqual([d["depth"] for d in r["depths"]], [5, 64])
        for d in r["depths"]:
            self.assertTrue(d["prefill_tok_s"] > 0 and d["decode_tok_s"] > 0, d)
            self.assertGreater(d["read_share_kv"], d["read_share"])
        # 2 tokens see 5 + 1.5 and 64 + 1.5 positions.
        self.assertAlmostEqual(r["depths"][1]["token_kv_bytes"] / r["depths"][0]["token_kv_bytes"],
                               65.5 / 6.5)
        text = self.good(*args, "--depths", "16").decode()
        self.assertRegex(text, r"(?m)^at 16 +prefill +\d.*decode +\d")
        for bad in ("", "0", "-1", "8,8", "9,8", "8,", ",8", "8;9", "8388609", "9" * 30):
            self.fails("--depths .*ascending numbers", *args, "--depths", bad)
        self.fails("--depths: at most 32", *args, "--depths", ",".join(map(str, range(1, 34))))

    def test_verify(self):
        args = ("bench", MODEL, "-p", 8, "-n", 2, "-t", 1)
        r = json.loads(self.good(*args, "--verify", "2,31", "--json"))
        self.assertEqual(list(r["verify_ms"]), ["2", "31"])
        text = self.good(*args, "--verify", "5,32").decode()
        self.assertRegex(text, r"(?m)^verify5 .*1.00 of verify5\)\nverify32 ")
        for bad in ("", "0", "33", "4,2", "1-4"):
            self.fails("--verify .*ascending numbers from 1 to 32", *args, "--verify", bad)

    def test_table(self):
        text = self.good("bench", MODEL, "-p", 5, "-n", 1).decode()
        for word in ("prefill", "decode", "verify32", "memory", "reading"):
            self.assertIn(word, text)
        self.assertRegex(text, r"(?m)^at 5 +that is \d+ %; with \d.* of K/V, \d+ %$")


class ChatFromAPipe(Case):
    def chat(self, *lines, n=8, args=()):
        return pal("chat", MODEL, "--template", "chatml", "-n", n, "--temp", 0, *args,
                   stdin="".join(line + "\n" for line in lines))

    def test_turns_keep_what_was_read(self):
        p = self.chat("Hello", "/stats", "And again", "/stats", "/reset", "Hello", "/stats")
        message = p.stderr.decode()
        self.assertEqual(p.returncode, 0, message)
        turns = re.findall(r"last turn (\d+) tokens read .*?, (\d+) kept", message)
        self.assertEqual(len(turns), 3)
        first, second, third = [[int(n) for n in turn] for turn in turns]
        self.assertEqual(first[1], 0)
        self.assertGreaterEqual(second[1], first[0])
        self.assertEqual(third, first)

    def test_lines_joined_by_a_backslash(self):
        p = self.chat("one\\", "two", "/save " + self.path("talk.json"))
        self.assertEqual(p.returncode, 0, p.stderr)
        with open(self.path("talk.json"), encoding="utf-8") as f:
            talk = json.load(f)
        self.assertEqual([m["role"] for m in talk], ["user", "assistant"])
        self.assertEqual(talk[0]["content"], "one\ntwo")

    def test_settings(self):
        p = self.chat("/system Be brief.", "/temp 0.5", "/think off", " /not a command",
                      "/save " + self.path("talk.json"), "/system", "/quit", "never read",
                      "/save /nonexistent/x")
        self.assertEqual(p.returncode, 0, p.stderr)
        with open(self.path("talk.json"), encoding="utf-8") as f:
            talk = json.load(f)
        self.assertEqual([m["role"] for m in talk], ["system", "user", "assistant"])
        self.assertEqual(talk[1]["content"], "/not a command")
        for word in ("system message set", "temperature 0.5", "thinking off", "message removed"):
            self.assertIn(word, p.stderr.decode())

    def test_failures_end_it(self):
        for lines, text in ((("/walk",), "unknown command /walk"),
                            (("/temp x",), "/temp takes"),
                            (("/think",), "/think takes"),
                            (("/quit now",), "/quit takes nothing"),
                            (("/save /nonexistent/x",), "/nonexistent/x: cannot be written")):
            p = self.chat(*lines, "/quit")
            self.assertEqual(p.returncode, 1)
            self.assertIn("pal: " + text, p.stderr.decode())
        p = pal("chat", MODEL, "--template", "chatml", stdin=b"\xff\n")
        self.assertEqual(p.returncode, 1)
        self.assertIn(b"not UTF-8", p.stderr)

    def test_full_context(self):
        p = self.chat("word " * 200, args=("--ctx", 64))
        self.assertEqual(p.returncode, 1)
        self.assertRegex(p.stderr.decode(), r"no room is left in the context of 64.*/reset.*--ctx")
        p = self.chat("Hello", n=0, args=("--ctx", 64))
        self.assertEqual(p.returncode, 0)
        self.assertRegex(p.stderr.decode(), r"^(\(the context of 64 tokens is full.*/reset.*\)\n)?$")

    def test_answers_alone_on_standard_output(self):
        p = self.chat("Hello", "/help", "/stats")
        alone = self.chat("Hello")
        self.assertEqual(p.stdout, alone.stdout)
        self.assertTrue(alone.stdout.endswith(b"\n"))


class ChatAtATerminal(Case):
    def start(self, *args):
        env = {"PATH": os.environ["PATH"], "TERM": "xterm", "HOME": self.folder.name,
               "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "")}
        try:
            t = Terminal([PAL, "chat", MODEL, "--template", "chatml", *map(str, args)], env)
        except OSError as e:  # a chroot without /dev/pts, say
            self.skipTest(f"no pseudo-terminal: {e}")
        t.expect("/help lists the commands.*> ")
        return t

    def test_answer_edit_history_and_leaving(self):
        t = self.start("-n", 5)
        t.type("Helo\x02l\n")  # Ctrl-B goes back, over the o
        t.expect("cut off at the limit.*> ")
        t.type("/save " + self.path("talk.json") + "\n")
        t.expect("2 messages written.*> ")
        t.type("\x04")
        self.assertEqual(t.close(), 0)
        with open(self.path("talk.json"), encoding="utf-8") as f:
            self.assertEqual(json.load(f)[0]["content"], "Hello")
        history = self.path(".local/state/palimpsest/history")
        self.assertEqual(os.stat(history).st_mode & 0o777, 0o600)
        t = self.start("-n", 5)
        t.type("\x10\x10\n")  # the line before the last one
        t.expect("cut off at the limit.*> ")
        t.type("/save " + self.path("again.json") + "\n")
        t.expect("messages written.*> ")
        t.type("/quit\n")
        self.assertEqual(t.close(), 0)
        with open(self.path("again.json"), encoding="utf-8") as f:
            self.assertEqual(json.load(f)[0]["content"], "Hello")

    def test_ctrl_c_at_the_prompt(self):
        t = self.start("-n", 3)
        t.type("something")
        t.expect("something")  # a terminal forgets what was not yet read
        t.type("\x03")
        self.assertNotIn("/quit", t.expect("> "))
        t.type("\x03")
        t.expect("/quit or Ctrl-D leaves.*> ")
        t.type("/stats\n")
        t.expect("context   0 of.*> ")
        t.type("\x04")
        self.assertEqual(t.close(), 0)

    def test_ctrl_c_stops_the_answer_only(self):
        t = self.start("--temp", 1)
        for _ in range(200):  # an answer may be over before Ctrl-C comes
            t.type("/reset\n")
            t.expect("a new conversation.*> ")
            t.type("Hello\n")
            t.expect("Hello.*?\n(?=.)")
            t.type("\x03")
            # an answer that was over: its prompt, and that of Ctrl-C, which drops what is typed
            if "(stopped)" in t.expect(r"\(stopped\).*\n> $|(^|\n)> .*\n> $"):
                break
        else:
            self.fail("no answer could be stopped")
        t.type("/stats\n")
        t.expect("last turn|context.*> ")
        t.type("/quit\n")
        self.assertEqual(t.close(), 0)

    def test_history_that_cannot_be_written(self):
        with open(self.path(".local"), "w", encoding="utf-8"):
            pass
        t = self.start("-n", 3)
        t.type("/quit\n")
        self.assertEqual(t.close(), 0)

    def test_mistakes_do_not_end_it(self):
        t = self.start("-n", 3)
        t.type("/walk\n")
        t.expect("pal: unknown command /walk.*> ")
        t.type("one\\\n")
        t.expect(r"\. ")
        t.type("two\n")
        t.expect("cut off.*> ")
        t.type("/quit\n")
        self.assertEqual(t.close(), 0)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]], testRunner=TapRunner)
