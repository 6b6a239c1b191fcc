#!/usr/bin/env python3
"""How well a model recalls with full attention, and with a window only, and its loss on text.

  evaluate.py WORK NAME [--text held.txt] [--questions 500] [--lengths 512,1024,2048] [--hard]

WORK/NAME.pt answers the questions of tasks.json on texts of about LENGTH tokens: lines of
--text (WORK/held.txt, which training never saw), eight tasks' facts on lines of their own between
them, and the questions at the end, one after the other. Everything is tokenised as one text. An
answer counts when every token of it is the most probable one: greedy generation is then right to
the letter. The window is 4 sinks and the last 64 tokens at every step, question and answer
included, and no fact is in it. Prints one JSON object a line.
"""
import argparse
import collections
import json
import pathlib

import numpy as np
import tokenizers
import torch

from model import Config, Model
from recalltext import Writer
from train import held_out

FACTS, SINKS, WINDOW = 8, 4, 64


class Examiner:
    def __init__(self, work, text, hard, seed):
        self.tok = tokenizers.Tokenizer.from_file(str(work / "tokenizer.json"))
        tasks = json.loads((pathlib.Path(__file__).parent / "tasks.json").read_text())
        self.rng = np.random.default_rng(seed)
        self.writer = Writer(self.tok, tasks, None, self.rng)
        self.kinds = self.writer.easy + (self.writer.hard if hard else [])
        self.form = tasks["plain"]
        self.lines = text.read_text().splitlines(keepends=True)
        self.sizes = [len(e.ids) for e in self.tok.encode_batch(self.lines)]

    def ids(self, text):
        return self.tok.encode(text).ids

    def filler(self, tokens, least=0):
        """Lines of text: as many as fit into tokens, but least tokens or more."""
        at, out = int(self.rng.integers(len(self.lines))), []
        while tokens >= self.sizes[at] or least > 0:
            tokens -= self.sizes[at]
            least -= self.sizes[at]
            out.append(self.lines[at])
            at = (at + 1) % len(self.lines)
        return out

    def sample(self, length):
        """Ids, and the answers as (kind, first index, end)."""
        w, used, facts, asked = self.writer, set(), [], []
        kinds = list(self.rng.permutation(self.kinds * 2)[:FACTS])
        for name in kinds:
            kind, v = w.task(name, used)
            for phrasings in kind["facts"]:
                facts.append(w.fill(w.pick(phrasings), v) + "\n")
            asked.append((name, w.fill(w.pick(kind["questions"]), v), kind["lead"],
                          w.fill(kind["answer"], v)))
        self.rng.shuffle(facts)
        self.rng.shuffle(asked)
        ends = [("\n" if i == 0 else "") + self.form["before"] + q + self.form["between"] + lead
                for i, (_, q, lead, _) in enumerate(asked)]
        room = length - sum(len(self.ids(t)) + 2 for t in facts) - sum(
            len(self.ids(e + a[3] + self.form["after"])) for e, a in zip(ends, asked))
        lines = self.filler(room - WINDOW)
        tail = self.filler(0, WINDOW)
        for at, fact in zip(sorted(self.rng.integers(0, len(lines) + 1, len(facts)))[::-1],
                            facts):
            lines.insert(at, fact)
        text, spans = "".join(lines + tail), []
        for end, (name, _, _, answer) in zip(ends, asked):
            text += end
            start = len(self.ids(text))
            text += answer + self.form["after"]
            spans.append((name, start, start + len(self.ids(answer))))
        return self.ids(text), spans

    def right(self, got, want):
        """For each token whether it is right. The last one is the answer's full stop, which is
        one token with the newline after it or is not: both are right."""
        stop = self.tok.id_to_token(int(got[-1])).startswith(".")
        return [int(g) == w for g, w in zip(got[:-1], want)] + [stop]


@torch.no_grad()
def best(model, ids):
    return model.logits(model(torch.tensor(ids))).argmax(-1).numpy()


def in_window(model, exam, ids, start, end):
    """Whether the answer is right with the sinks and the window; starts with its first token, as
    an answer that begins wrong needs no more of them."""
    for at, stop in ((range(start, start + 1), False), (range(start + 1, end), True)):
        got = best(model, [ids[:SINKS] + ids[t - WINDOW:t] for t in at])[:, -1]
        want = [ids[t] for t in at]
        if not all(exam.right(got, want) if stop else got == want):
            return False
    return True


def recall(model, exam, length, questions):
    """{kind: [asked, exact with everything, first token right, exact with the window]}"""
    count = collections.defaultdict(lambda: np.zeros(4, int))
    while min(count[k][0] for k in exam.kinds) < questions:
        ids, spans = exam.sample(length)
        full = best(model, [ids])[0]
        for kind, start, end in spans:
            ok = exam.right(full[start - 1:end - 1], ids[start:end])
            count[kind] += (1, all(ok), ok[0], in_window(model, exam, ids, start, end))
    return count


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("work", type=pathlib.Path)
    ap.add_argument("name")
    ap.add_argument("--text", type=pathlib.Path)
    ap.add_argument("--questions", type=int, default=500)
    ap.add_argument("--lengths", default="512,1024,2048")
    ap.add_argument("--hard", action="store_true")
    ap.add_argument("--seed", type=int, default=1)
    a = ap.parse_args()
    model = Model(Config())
    model.load_state_dict(torch.load(a.work / f"{a.name}.pt", map_location="cpu"))
    exam = Examiner(a.work, a.text or a.work / "held.txt", a.hard, a.seed)
    for length in map(int, a.lengths.split(",")):
        count = recall(model, exam, length, a.questions)
        for kind, (n, full, first, near) in sorted(count.items()):
            print(json.dumps({"length": length, "kind": kind, "asked": int(n),
                              "exact": round(full / n, 4), "first": round(first / n, 4),
                              "window_only": round(near / n, 4)}), flush=True)
    held = np.fromfile(a.work / "held.bin", dtype=np.uint16)
    print(json.dumps({"text_nats": {n: round(held_out(model, held, n, True), 4)
                                    for n in (1024, 2048)}}), flush=True)


if __name__ == "__main__":
    main()
