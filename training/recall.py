#!/usr/bin/env python3
"""Goes on from WORK/model.pt with text that has facts and questions in it (recalltext.py).

  recall.py WORK --out NAME [--from NAME] [--hard] [--favour KIND] [--lr 1] [--minutes 50]
            [--resume]

Writes WORK/NAME.pt (weights) and WORK/NAME.state (all that --resume needs) every two minutes,
WORK/NAME.jsonl is the log. Lengths grow as the answers become right. With --hard there are
tasks of two facts, and a second loss: at the prompt's last two tokens the input of the last block
must name, through a matrix of its own, the thing whose code is the answer. It takes the first
step of two into the blocks before the last, which the second step needs.
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
from recalltext import ANSWER, FIRST, QUESTION, TEXT, Writer
from train import Muon, average_gradients

BATCH = 8192  # tokens a step, over all workers
STAGES = [(192, 0.25), (512, 0.45), (1024, 0.6), (2048, 1.0)]  # length, and latest end
LR_MUON, LR_ADAM = 0.01, 0.002


def batch(writer, n, length, hard, device):
    """Ids and counts, [n][length + 1], and the names as (place in all inputs, token)."""
    rows = [writer.sample(length + 1, hard) for _ in range(n)]
    names = [(i * length + at - back, t) for i, row in enumerate(rows) for at, name in row[2]
             for back in (1, 2) for t in name if at > 1]
    ids = torch.tensor([r[0] for r in rows], device=device)
    return ids, torch.tensor([r[1] for r in rows], device=device), names


def naming_loss(naming, model, before, names):
    """Mean -log p of the names' tokens, from the input of the last block."""
    at, want = torch.tensor(names, device=before.device).T
    h = naming(rms(before.reshape(-1, model.c.dim)[at], naming.gain, model.c.eps))
    return F.cross_entropy(F.linear(h, model.token_embd.weight).float(), want)


def losses(model, naming, ids, counts, names, chunk=2048):
    """Mean -log p of text and of answers (and of names), and how many answers are right, first
    and whole."""
    device = "cuda" if ids.is_cuda else "cpu"
    with torch.autocast(device, dtype=torch.bfloat16):
        h, before = model(ids[:, :-1], tap=True)
        h = h.reshape(-1, model.c.dim)
        want, what = ids[:, 1:].reshape(-1), counts[:, 1:].reshape(-1)
        nll, right = [], []
        for i in range(0, len(want), chunk):
            logits = F.linear(h[i:i + chunk], model.token_embd.weight).float()
            nll.append(F.cross_entropy(logits, want[i:i + chunk], reduction="none"))
            right.append(logits.detach().argmax(-1) == want[i:i + chunk])
        name = None
        if naming:
            name = naming_loss(naming, model, before, names or [(0, 0)])
    nll, right = torch.cat(nll), torch.cat(right)
    answer, first = (what == ANSWER) | (what == FIRST), what == FIRST
    text = (what == TEXT).float() + 0.3 * (what == QUESTION).float()
    # An answer is whole when as many of its tokens are right as it has.
    number = (torch.cumsum(first.long(), 0) * answer)[answer]
    wrong = torch.zeros(int(first.sum()) + 1, device=ids.device)
    wrong.scatter_add_(0, number, (~right[answer]).float())
    exact = (wrong[1:] == 0).float().mean() if len(wrong) > 1 else torch.zeros(())
    loss = nll[answer].mean()
    return ((nll * text).sum() / text.sum(), loss, loss if name is None else loss + 0.5 * name,
            right[first].float().mean(), exact)


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
    naming, trained = None, model
    if a.hard:
        torch.manual_seed(0)
        naming = nn.Linear(model.c.dim, model.c.dim, bias=False).to(device)
        naming.gain = nn.Parameter(torch.ones(model.c.dim, device=device))
        trained = nn.ModuleDict({"model": model, "naming": naming})
    muon = Muon([p for n, p in model.named_parameters() if p.dim() == 2 and n.startswith("blk.")],
                True)
    mine = {id(p) for p in muon.params}
    adam = torch.optim.Adam([p for p in trained.parameters() if id(p) not in mine],
                            lr=LR_ADAM, betas=(0.9, 0.98))
    stage, step, tokens, gone, mean = 0, 0, 0, 0.0, None
    if a.stage is not None:
        stage = a.stage
    if a.resume:
        s = torch.load(a.work / f"{a.out}.state", map_location=device, weights_only=False)
        model.load_state_dict(s["model"])
        adam.load_state_dict(s["adam"])
        if naming:
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
                    "naming": naming.state_dict() if naming else None, "stage": stage,
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
        if stage and pick.random() < 0.4:
            length = STAGES[int(pick.integers(0, stage))][0]
        ids, counts, names = batch(writer, max(1, BATCH // a.workers // length), length, a.hard,
                                   device)
        text, answer, both, first, exact = losses(model, naming, ids, counts, names)
        trained.zero_grad(set_to_none=True)
        (0.5 * text + both).backward()
        average_gradients(trained, a.workers)
        rate = min(1, (step + 1) / 30) * min(1, max(0.02, (1 - part) / 0.6))
        rate *= a.lr
        muon.step(LR_MUON * rate)
        for group in adam.param_groups:
            group["lr"] = LR_ADAM * rate
        adam.step()
        step, tokens = step + 1, tokens + BATCH
        now = np.array([text.item(), answer.item(), first.item(), exact.item()])
        mean = now if mean is None else 0.95 * mean + 0.05 * now
        if stage + 1 < len(STAGES) and (part > STAGES[stage][1] or mean[3] > 0.9):
            stage += 1
        if rank == 0 and step % 10 == 0:
            spent = time.time() - start
            fields = {"step": step, "seconds": round(spent), "tokens": tokens, "length": length,
                      "stage": STAGES[stage][0], "text": round(mean[0], 3),
                      "answer": round(mean[1], 3), "first": round(mean[2], 3),
                      "exact": round(mean[3], 3), "tokens_per_s": round(tokens / spent)}
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
