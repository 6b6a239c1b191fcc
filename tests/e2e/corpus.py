#!/usr/bin/python3
"""Drives pal corpus as a user would, and prints TAP.

corpus.py PAL MODEL OTHER [unittest arguments]; OTHER has another vocabulary.
"""
import json
import os
import resource
import struct
import subprocess
import sys
import tempfile
import unittest

from tap import TapRunner

PAL, MODEL, OTHER = (os.path.abspath(a) for a in sys.argv[1:4])
HEADER = "<8sIIQQQQQQ"  # docs/formats/corpus.md


class Corpus(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.out = self.path("a.corpus")

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def file(self, name, text):
        with open(self.path(name), "w", encoding="utf-8") as f:
            f.write(text)
        return self.path(name)

    def pal(self, *args, **more):
        return subprocess.run([PAL, *map(str, args)], capture_output=True, timeout=120,
                              check=False, **more)

    def good(self, *args, model=MODEL, **more):
        p = self.pal("corpus", model, "-o", self.out, *args, **more)
        self.assertEqual((p.returncode, p.stderr), (0, b""))
        return p.stdout.decode()

    def fails(self, text, *args, **more):
        """Exit code 1, one line that has the text, and no file more or less than before."""
        before = sorted(os.listdir(self.folder.name))
        p = self.pal("corpus", *args, **more)
        message = p.stderr.decode("utf-8", "replace")
        self.assertEqual(p.returncode, 1, message)
        self.assertRegex(message, r"^pal: .*" + text)
        self.assertEqual(message.count("\n"), 1)
        self.assertEqual(sorted(os.listdir(self.folder.name)), before)

    def bytes(self):
        with open(self.out, "rb") as f:
            return f.read()

    def documents(self):
        """The texts' ids, as the file has them."""
        data = self.bytes()
        magic, version, head, size, n, count = struct.unpack_from(HEADER, data)[:6]
        self.assertEqual((magic, version, size), (b"PALCORPS", 1, len(data)))
        self.assertLessEqual(size - head, 24 * n)
        all_ids = struct.unpack_from(f"<{n}i", data, head)
        index = struct.unpack_from(f"<{n}I", data, head + 4 * n)
        self.assertEqual(sorted(index), list(range(n)))
        found, document = [], []
        for i in all_ids:
            if i < 0:
                found.append(document)
                document = []
            else:
                document.append(i)
        self.assertEqual((document, len(found)), ([], count))
        return found

    def tokens(self, text):
        p = self.pal("tokenize", MODEL, input=text.encode())
        return [int(i) for i in p.stdout.split()]

    def test_texts(self):
        texts = ["the sea is wide", "and the sea is deep\n" * 50, ""]
        names = [self.file(f"{i}.txt", text) for i, text in enumerate(texts)]
        said = self.good(*sum((["-f", n] for n in names), []))
        self.assertRegex(said, r"^\d+ tokens of 2 documents, .*B, \d+\.\d bytes a token\n$")
        self.assertEqual(self.documents(), [self.tokens(t) for t in texts[:2]])

    def test_the_same_from_anywhere(self):
        text = "one two three one two four\n" * 9
        self.good("-f", self.file("a.txt", text))
        first = self.bytes()
        self.good(input=text.encode())
        self.assertEqual(self.bytes(), first)
        self.good("--list", self.file("list", f"\n{self.path('a.txt')}\n"))
        self.assertEqual(self.bytes(), first)
        self.good("--ids", input="\n".join(map(str, self.tokens(text))).encode())
        self.assertEqual(self.bytes(), first)

    def test_special_tokens(self):
        """They are text in a text, and tokens in a transcript; `pal tokenize` knows them."""
        text = "<|im_start|>user\nhello<|im_end|>\n"
        self.good("--special", input=text.encode())
        self.assertEqual(self.documents(), [self.tokens(text)])
        self.good(input=text.encode())
        self.assertGreater(len(self.documents()[0]), len(self.tokens(text)))

    def test_json(self):
        text = "some text, some more text " * 20
        report = json.loads(self.good("--json", input=text.encode()))
        self.assertEqual((report["tokens"], report["documents"], report["text_bytes"],
                          report["bytes"]),
                         (len(self.tokens(text)), 1, len(text), len(self.bytes())))
        self.assertEqual(report["vocabulary"]["hash"],
                         f"{struct.unpack_from(HEADER, self.bytes())[7]:016x}")
        self.assertGreater(report["rss_bytes"], 0)
        self.assertLessEqual({"machine", "build", "read_s", "write_s", "corpus"}, set(report))

    def test_another_vocabulary(self):
        """What the file is bound to changes with the vocabulary, and with nothing else."""
        found = []
        for model, text in ((MODEL, b"a b c"), (MODEL, b"d e"), (OTHER, b"a b c")):
            self.good(model=model, input=text)
            found.append(struct.unpack_from(HEADER, self.bytes())[6:8])
        self.assertEqual(found[0], found[1])
        self.assertNotEqual(found[0], found[2])

    def test_refused(self):
        text = self.file("a.txt", "hello")
        self.fails("-o FILE", MODEL, "-f", text)
        self.fails("would write over", MODEL, "-f", text, "-o", text)
        self.fails("would write over", MODEL, "-o", MODEL, input=b"hello")
        self.fails("would write over", MODEL, "--list", self.file("list", text), "-o", text)
        self.fails("No such file", MODEL, "-f", self.path("nothing"), "-o", self.out)
        self.fails("No such file", MODEL, "--list", self.path("nothing"), "-o", self.out)
        self.fails("No such file", self.path("nothing"), "-o", self.out, input=b"hello")
        self.fails("there is none", MODEL, "-o", self.out, input=b"")
        self.fails("not UTF-8: byte 0xff at offset 3", MODEL, "-o", self.out, input=b"abc\xff")
        self.fails("token id 2, 99999999, is outside", MODEL, "--ids", "-o", self.out,
                   input=b"1 99999999")
        self.fails("'x', is not a number", MODEL, "--ids", "-o", self.out, input=b"x")
        self.fails("no/b cannot be written: No such file", MODEL, "-f", text, "-o",
                   self.path("no/b"))
        self.fails("is no regular file", MODEL, "-f", text, "-o", "/dev/null")

    def test_no_room(self):
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        self.fails("cannot be written: File too large", MODEL, "-o", self.out,
                   input=b"hello " * 500, preexec_fn=limit)

    def test_an_old_one_stays_until_the_new_one_is_whole(self):
        self.good(input=b"old text")
        with open(self.out, "rb") as held:
            old = self.bytes()
            self.fails("not UTF-8", MODEL, "-o", self.out, input=b"\xff")
            self.assertEqual(self.bytes(), old)
            self.good(input=b"some new text")
            self.assertNotEqual(self.bytes(), old)
            self.assertEqual(held.read(), old)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[4:], testRunner=TapRunner)
