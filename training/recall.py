#!/usr/bin/env python3
"""Goes on from WORK/model.pt with text that has facts and questions in it (recalltext.py).

  recall.py WORK --out NAME [--from NAME] [--hard] [--favour KIND] [--lr 1] [--minutes 50]
            [--resume]

Writes WORK/NAME.pt (weights) and WORK/NAME.state (all that --resume needs) every two minutes,
WORK/NAME.jsonl is the log. Lengths grow as the answers become right. With --hard there are
tasks of two facts, and two more losses, each through a matrix of its own: where an answer begins,
the input of the last block but one must name what the question asks about, and that of the last
block what its answer stands under; where an alias is explained, the former names the alias at the
thing's name. So the first step of two is done before the last block, which does the second.
Runs on a GPU as it is, where there is one.
"""
import argparse
import json
import pathlib
import time

import numpy as np
import tokenizers
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from model import Config, Model, rms
from recalltext import ANSWER, FIRST, FIRST_HOP, QUESTION, SECOND_HOP, TEXT, Writer
from train import Muon, average_gradients

BATCH = 8192  # tokens a step, over all workers
STAGES = [(192, 0.25), (512, 0.45), (1024, 0.6), (2048, 1.0)]  # length, and latest end
LR_MUON, LR_ADAM = 0.01, 0.002


def batch(writer, n, length, hard, device):
    """Ids and counts, [n][length + 1], the questions' kinds, and {block: its marks as (place in all
    inputs, token)}."""
    rows = [writer.sample(length + 1, hard) for _ in range(n)]
    kinds = [kind for row in rows for kind in row[2]]
    marks = {depth: [(0, 0)] for depth in (FIRST_HOP, SECOND_HOP)}
    for i, row in enumerate(rows):
        for depth, a, b, name in row[3]:
            marks[depth] += [(i * length + at, t) for at in range(max(a, 0), min(b, length))
                             for t in name]
    ids = torch.tensor([r[0] for r in rows], device=device)
    return ids, torch.tensor([r[1] for r in rows], device=device), kinds, marks


class Naming(nn.Module):
    """Names what the input of a block knows of."""

    def __init__(self, c):
        super().__init__()
        self.c, self.gain = c, nn.Parameter(torch.ones(c.dim))
        self.out = nn.Linear(c.dim, c.dim, bias=False)
        nn.init.eye_(self.out.weight)

    def forward(self, x, embedding, marks):
        """Mean -log p of the marks' tokens."""
        at, want = torch.tensor(marks, device=x.device).T
        h = self.out(rms(x.reshape(-1, self.c.dim)[at], self.gain, self.c.eps))
        return F.cross_entropy(F.linear(h, embedding).float(), want)


def losses(model, naming, ids, counts, marks, chunk=2048):
    """Mean -log p of text, of answers and of what naming names, and for every question whether the
    answer's first token is right and whether all of them are."""
    device = "cuda" if ids.is_cuda else "cpu"
    with torch.autocast(device, dtype=torch.bfloat16):
        h, inputs = model(ids[:, :-1], tap=True)
        h = h.reshape(-1, model.c.dim)
        want, what = ids[:, 1:].reshape(-1), counts[:, 1:].reshape(-1)
        nll, right = [], []
        for i in range(0, len(want), chunk):
            logits = F.linear(h[i:i + chunk], model.token_embd.weight).float()
            nll.append(F.cross_entropy(logits, want[i:i + chunk], reduction="none"))
            right.append(logits.detach().argmax(-1) == want[i:i + chunk])
        named = [n(inputs[int(depth)], model.token_embd.weight, marks[int(depth)])
                 for depth, n in naming.items()]
    nll, right = torch.cat(nll), torch.cat(right)
    answer, first = (what == ANSWER) | (what == FIRST), what == FIRST
    text = (what == TEXT).float() + 0.3 * (what == QUESTION).float()
    # An answer is whole when as many of its tokens are right as it has.
    number = (torch.cumsum(first.long(), 0) * answer)[answer]
    wrong = torch.zeros(int(first.sum()) + 1, device=ids.device)
    wrong.scatter_add_(0, number, (~right[answer]).float())
    return ((nll * text).sum() / text.sum(), nll[answer].mean(), named, right[first].cpu().numpy(), (wrong[1:] == 0).cpu().numpy())


def train(rank, a):
    torch.set_num_threads(1 if a.workers > 1 else max(1, torch.get_num_threads()))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dist.init_process_group("gloo", init_method=f"file://{a.work.resolve()}/rendezvous-{a.out}",
                            rank=rank, world_size=a.workers)
    tok = tokenizers.Tokenizer.from_file(str(a.work / "tokenizer.json"))
    tasks = json.loads((pathlib.Path(__file__).parent / "tasks.json").read_text())
    data = np.memmap(a.work / "train.bin", dtype=np.uint16, mode="r")
    writer = Writer(tok, tasks, data, np.random.default_rng([a.seed, rank, int(a.resume)]))
    for kind in a.favour:
        writer.favour(kind)
    model = Model(Config(ctx=2048)).to(device)
    model.load_state_dict(torch.load(a.work / f"{a.start}.pt", map_location=device))
    naming = nn.ModuleDict({str(depth): Naming(model.c).to(device)
                            for depth in (FIRST_HOP, SECOND_HOP) if a.hard})
    before = a.work / f"{a.start}.state"
    if naming and before.exists():  # of a hard model: what named things there goes on
        naming.load_state_dict(
            torch.load(before, map_location=device, weights_only=False)["naming"], strict=False)
    trained = nn.ModuleDict({"model": model, "naming": naming})
    muon = Muon([p for n, p in trained.named_parameters() if p.dim() == 2 and "embd" not in n],
                True)
    mine = {id(p) for p in muon.params}
    adam = torch.optim.Adam([p for p in trained.parameters() if id(p) not in mine],
                            lr=LR_ADAM, betas=(0.9, 0.98))
    stage, step, tokens, gone, mean, by_kind = 0, 0, 0, 0.0, None, {}
    if a.stage is not None:
        stage = a.stage
    if a.resume:
        s = torch.load(a.work / f"{a.out}.state", map_location=device, weights_only=False)
        model.load_state_dict(s["model"])
        adam.load_state_dict(s["adam"])
        naming.load_state_dict(s["naming"])
        for m, saved in zip(muon.momentum, s["muon"]):
            m.copy_(saved)
        stage, step, tokens, gone, mean = (
            s[k] for k in ("stage", "step", "tokens", "gone", "mean"))
    if not a.eager:
        for block in model.blk:
            block.compile(dynamic=False)
    log = open(a.work / f"{a.out}.jsonl", "a" if a.resume else "w") if rank == 0 else None
    start, saved = time.time() - gone, time.time()

    def save(final=False):
        plain = {k.replace("_orig_mod.", ""): v for k, v in model.state_dict().items()}
        torch.save(plain, a.work / f"{a.out}.pt.new")
        (a.work / f"{a.out}.pt.new").rename(a.work / f"{a.out}.pt")
        torch.save({"model": plain, "adam": adam.state_dict(), "muon": muon.momentum,
                    "naming": naming.state_dict(), "stage": stage,
                    "step": step, "tokens": tokens, "mean": mean, "gone": time.time() - start},
                   a.work / f"{a.out}.state")

    while True:
        clock = torch.tensor([(time.time() - start) / (60 * a.minutes), float(stage)])
        dist.broadcast(clock, 0)  # all workers must agree
        part, stage = clock[0].item(), int(clock[1].item())
        if part >= 1:
            break
        pick = np.random.default_rng([11, step])
        length = STAGES[stage][0]
        shortest = int(a.hard)  # too short for many facts
        if stage > shortest and pick.random() < 0.4:
            length = STAGES[int(pick.integers(shortest, stage))][0]
        ids, counts, kinds, marks = batch(writer, max(1, BATCH // a.workers // length), length,
                                          a.hard, device)
        text, answer, named, first, exact = losses(model, naming, ids, counts, marks)
        trained.zero_grad(set_to_none=True)
        (0.5 * text + answer + 0.5 * sum(named)).backward()
        average_gradients(trained, a.workers)
        rate = min(1, (step + 1) / 30) * min(1, max(0.02, (1 - part) / 0.6))
        rate *= a.lr
        muon.step(LR_MUON * rate)
        for group in adam.param_groups:
            group["lr"] = LR_ADAM * rate
        adam.step()
        step, tokens = step + 1, tokens + BATCH
        now = np.array([text.item(), answer.item(), first.mean(), exact.mean()])
        for kind, whole in zip(kinds, exact):
            by_kind[kind] = 0.98 * by_kind.get(kind, 0.0) + 0.02 * whole
        mean = now if mean is None else 0.95 * mean + 0.05 * now
        if stage + 1 < len(STAGES) and (part > STAGES[stage][1] or mean[3] > 0.9):
            stage += 1
        if rank == 0 and step % 10 == 0:
            spent = time.time() - start
            fields = {"step": step, "seconds": round(spent), "tokens": tokens, "length": length,
                      "stage": STAGES[stage][0], "text": round(mean[0], 3),
                      "answer": round(mean[1], 3), "first": round(mean[2], 3),
                      "exact": round(mean[3], 3), "named": [round(n.item(), 3) for n in named],
                      "tokens_per_s": round(tokens / spent),
                      "kinds": {k: round(float(v), 3) for k, v in sorted(by_kind.items())}}
            print(json.dumps(fields), flush=True)
            print(json.dumps(fields), file=log, flush=True)
        if rank == 0 and time.time() - saved > 120:
            saved = time.time()
            save()
    dist.destroy_process_group()
    if rank == 0:
        save()


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("work", type=pathlib.Path)
    ap.add_argument("--out", required=True)
    ap.add_argument("--from", dest="start", default="model")
    ap.add_argument("--hard", action="store_true")
    ap.add_argument("--favour", metavar="KIND", action="append", default=[],
                    help="a kind of task to make three times as likely; may be repeated")
    ap.add_argument("--lr", type=float, default=1, help="factor of the learning rates")
    ap.add_argument("--seed", type=int, default=7)
    ap.add_argument("--minutes", type=float, default=50)
    ap.add_argument("--workers", type=int, default=2)
    ap.add_argument("--stage", type=int, help="the curriculum's stage to begin with")
    ap.add_argument("--resume", action="store_true")
    ap.add_argument("--eager", action="store_true", help="no torch.compile")
    a = ap.parse_args()
    (a.work / f"rendezvous-{a.out}").unlink(missing_ok=True)
    torch.multiprocessing.spawn(train, (a,), a.workers)


if __name__ == "__main__":
    main()
