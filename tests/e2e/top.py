#!/usr/bin/python3
"""Drives pal top against a server, and against none, and prints TAP.

top.py PAL MODEL MANPAGE [unittest arguments]
"""
import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

from serving import Server
from tap import TapRunner
from terminal import Terminal

PAL, MODEL, MANPAGE = (os.path.abspath(a) for a in sys.argv[1:4])
KEY = "a-key-for-this-test"


def top(*args):
    return subprocess.run([PAL, "top", *args], stdin=subprocess.DEVNULL, capture_output=True,
                          timeout=60, check=False)


def write(text):
    f = tempfile.NamedTemporaryFile("w", suffix=".keys")
    f.write(text)
    f.flush()
    return f


class Top(unittest.TestCase):
    def setUp(self):
        self.server = Server(PAL, MODEL, "--window", 64)
        self.addCleanup(self.server.close)
        status, reply = self.server.ask("POST", "/v1/completions", {
            "prompt": "one two three " * 60, "max_tokens": 5, "temperature": 0})
        self.assertEqual(status, 200, reply)
        self.session = reply["usage"]["palimpsest"]

    def test_once(self):
        p = top("--url", self.server.url + "/", "--once")
        self.assertEqual((p.returncode, p.stderr), (0, b""))
        text = p.stdout.decode()
        self.assertIn("SESSION", top("--url", self.server.url).stdout.decode())  # as to a pipe
        self.assertRegex(text, r"\Apalimpsest.*, pal \d")
        self.assertRegex(text, r"(?m)^memory .* \d+ MB")
        self.assertRegex(text, rf"(?m)^{self.session['session'][:13]}  loaded .*"
                         rf"\b{self.session['log_length']}  \[#+-*\] .* {self.session['evicted']} ")
        self.assertNotIn("\033", text)

    def test_json(self):
        p = top("--url", self.server.url, "--json")
        self.assertEqual(p.returncode, 0, p.stderr)
        o = json.loads(p.stdout)
        self.assertEqual(o["status"]["sessions"], 1)
        self.assertEqual(o["sessions"]["data"][0]["id"], self.session["session"])

    def test_terminal(self):
        t = Terminal([PAL, "top", "--url", self.server.url], dict(os.environ, TERM="xterm"))
        t.expect(r"tokens    made 5,.*sess-")
        self.server.ask("POST", "/v1/completions", {"prompt": "four", "max_tokens": 7})
        t.expect(r"tokens/s  made .*sess-.*sess-")
        self.server.close()
        t.expect(r"no answer: ")
        t.type("\x03")
        self.assertEqual(t.close(), 0)

    def fails(self, pattern, *args):
        p = top(*args)
        self.assertEqual((p.returncode, p.stdout), (1, b""))
        self.assertRegex(p.stderr.decode(), r"\Apal: " + pattern)

    def test_failures(self):
        self.fails("127.0.0.1:80: no URL of a server", "--url", "127.0.0.1:80")
        self.fails("http://127.0.0.1:1: no answer: ", "--url", "http://127.0.0.1:1")
        self.fails("/nonexistent/keys: ", "--key-file", "/nonexistent/keys")
        self.fails("unexpected argument", MODEL)
        with write("# none\n") as f:
            self.fails(".*no key in it", "--key-file", f.name)

    def test_help(self):
        with open(MANPAGE, encoding="utf-8") as f:
            page = f.read().replace("\\-", "-")
        text = subprocess.run([PAL, "help", "top"], capture_output=True, check=True).stdout.decode()
        self.assertTrue(text.startswith("usage: pal top [OPTION]...\n"))
        options = re.findall(r"(?m)^ +(--[\w-]+)", text)
        self.assertEqual(len(options), 5)
        for option in options:
            self.assertRegex(page, rf"(?m)(^|[\s\"]){re.escape(option)}(?![\w-])")


class Keys(unittest.TestCase):
    def test_keys(self):
        with write(KEY + "\n") as right, write("another-key-than-that\n") as wrong:
            server = Server(PAL, MODEL, "--api-key-file", right.name)
            self.addCleanup(server.close)
            p = top("--url", server.url)
            self.assertIn("asks for a key: --key-file", p.stderr.decode())
            p = top("--url", server.url, "--key-file", wrong.name)
            self.assertIn("does not take the key in", p.stderr.decode())
            p = top("--url", server.url, "--key-file", right.name)
            self.assertEqual(p.returncode, 0, p.stderr)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[4:]], testRunner=TapRunner)
