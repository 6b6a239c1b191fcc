"""Texts with facts in them, and questions about the facts: tasks.json made into token ids.

Writer(tokenizer, tasks, filler ids, rng).sample(length, hard) gives ids, for each of them what its
prediction counts: TEXT, ANSWER or NOTHING (facts are random and so not to be learnt), the kinds of
the questions in order, and marks for the hard variant: (depth, from, to, ids of a name), the name
that the tokens in [from, to) should have heard of by the input of that block. Real text stands
between the facts; questions come anywhere after their facts.
"""
import re

import numpy as np

NOTHING, TEXT, ANSWER, FIRST, QUESTION = 0, 1, 2, 3, 4  # FIRST: an answer's first token
PLACE = re.compile(r"\{(\w+)\}")
FIRST_HOP, SECOND_HOP = 2, 3  # blocks


class Writer:
    def __init__(self, tokenizer, tasks, filler, rng):
        self.tok, self.tasks, self.filler, self.rng = tokenizer, tasks, filler, rng
        kinds = tasks["kinds"]
        self.easy = [k for k in kinds if not kinds[k].get("hard")]
        self.hard = [k for k in kinds if kinds[k].get("hard")]

    def favour(self, kind):
        """Makes a kind of task three times as likely."""
        for group in (self.easy, self.hard):
            group += [kind] * 2 * (kind in group)

    def pick(self, items):
        return items[self.rng.integers(len(items))]

    def draw(self, name):
        """A text of the grammar's list."""
        return PLACE.sub(lambda m: self.draw(m[1]), self.pick(self.tasks["grammar"][name]))

    def ids(self, text):
        return self.tok.encode(text).ids

    def task(self, name, used):
        """The variables of a task whose keys are new to this text."""
        kind = self.tasks["kinds"][name]
        words = {w for key in used for w in key.split()}
        near = self.rng.random() < self.tasks["share"]
        for tries in range(200):
            v = {k: self.draw(g) for k, g in kind["vars"].items()}
            keys = [v[k] for k in kind["key"]]
            if len(set(keys)) < len(keys) or any(k in used for k in keys):
                continue
            if near and used and tries < 50 and not words & set(keys[0].split()):
                continue
            used.update(keys)
            return kind, v
        raise ValueError("the grammar has too few names")

    @staticmethod
    def fill(text, v):
        return PLACE.sub(lambda m: v[m[1]], text)

    def question(self, name, v):
        """Ids, what each counts, the kind, and marks: the name asked for, and the one under which
        the answer stands (for an alias, that of the thing itself)."""
        kind, chat = self.tasks["kinds"][name], self.rng.random() < 0.2
        form = self.tasks["chat" if chat else "plain"]
        before = self.ids(("" if chat else "\n") + form["before"] +
                          self.fill(self.pick(kind["questions"]), v) + form["between"] +
                          ("" if chat else kind["lead"]))
        lead = self.ids(kind["chat_lead"] + (kind["lead"] if chat else "")) if chat else []
        answer, after = self.ids(self.fill(kind["answer"], v)), self.ids(form["after"])
        first = len(before) + len(lead)
        marks = [(depth, first - 2, first + min(3, len(answer) - 1), self.ids(" " + v[of]))
                 for depth, of in ((FIRST_HOP, kind["key"][0]), (SECOND_HOP, "name")) if "name" in v]
        return (before + lead + answer + after,
                [QUESTION] * len(before) + [TEXT] * len(lead) + [FIRST] +
                [ANSWER] * (len(answer) - 1) + [TEXT] * len(after), name, marks)

    def fact(self, phrasings, v):
        """As of a question; where an alias is explained, the name should hear of the alias."""
        phrasing = self.pick(phrasings)
        form = "\n{}\n" if self.rng.random() < 0.5 else " {}"
        phrasing, marks = form.format(phrasing), []
        text = self.tok.encode(self.fill(phrasing, v))
        if "{alias}" in phrasing and "{name}" in phrasing:
            start = len(self.fill(phrasing[:phrasing.index("{name}")], v))
            inside = [i for i, (a, b) in enumerate(text.offsets)
                      if a < start + len(v["name"]) and b > start]
            marks = [(FIRST_HOP, inside[0], inside[-1] + 1, self.ids(" " + v["alias"]))]
        return text.ids, [NOTHING] * len(text.ids), None, marks

    def events(self, length, hard):
        """Facts and questions in an order that has every fact before its questions."""
        used, items, room = set(), [], length
        most = int(self.rng.integers(8, 21) if hard else self.rng.integers(4, 13))
        share = 0.85 if length <= 256 else 0.6 if length <= 512 else 0.4
        share += (1 - share) / 2 * hard  # more facts, so that guessing one of them pays less
        for _ in range(most):
            group = self.hard if hard and self.rng.random() < 0.6 else self.easy
            name = ("key" if group is self.easy and self.rng.random() < 0.4
                    else self.pick(group))
            kind, v = self.task(name, used)
            facts = [self.fact(p, v) for p in kind["facts"]]
            asked = [self.question(name, v)
                     for _ in range(1 if self.rng.random() < (0.5 if hard else 0.8) else 2)]
            cost = sum(len(i[0]) for i in facts + asked)
            if cost > room - (1 - share) * length:
                break
            room -= cost
            at = self.rng.random(len(facts)) * 0.8
            items += list(zip(at, facts))
            items += [(at.max() + (1 - at.max()) * (0.2 + 0.8 * self.rng.random()), q)
                      for q in asked]
        items.sort(key=lambda i: i[0])
        return [i[1] for i in items], room

    def sample(self, length, hard=False):
        items, room = self.events(length, hard)
        cuts = np.sort(self.rng.integers(0, room + 1, len(items)))
        at = int(self.rng.integers(0, len(self.filler) - room - 1))
        ids, counts, kinds, marks, last = [], [], [], [], 0
        for cut, (i, c, kind, m) in zip(list(cuts) + [room], items + [([], [], None, [])]):
            ids += self.filler[at + last:at + cut].tolist()
            counts += [TEXT] * (cut - last)
            if kind and len(ids) + c.index(FIRST) < length:
                kinds.append(kind)
            marks += [(depth, len(ids) + a, len(ids) + b, name) for depth, a, b, name in m]
            ids += i
            counts += c
            last = cut
        return ids[:length], counts[:length], kinds, marks
