#!/usr/bin/env python3
"""Trains the model on WORK/train.bin, for a time and not for a number of steps.

  train.py WORK [--minutes 45] [--workers 2]

Muon (momentum, orthogonalised by five Newton-Schulz steps) for the matrices of the blocks,
Adam for the rest; linear warm-up, then a linear decay over the time given. The context is
256 tokens at first and 1024 at the end. The multiplications run in bfloat16 unless --f32 is given.
A checkpoint (WORK/model.pt) every two minutes; WORK/train-log.jsonl is the log.

Each worker is a process of one thread with its own half of the batch, and gradients are
averaged once a step. On cores shared with other work this is several times as fast as one
process of two threads, which waits for the slower thread after every operation.
"""
import argparse
import contextlib
import dataclasses
import json
import pathlib
import time

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import nn

from model import Config, Model

BATCH = 6144  # tokens a step, over all workers
LR_MUON, LR_ADAM = 0.015, 0.003
WARM_UP = 50  # steps
CONTEXTS = [(0.0, 256), (0.8, 1024)]  # from which part of the time on
DECAY_FROM = 0.3  # part of the time after which the learning rate falls


def orthogonalise(g, bf16):
    x = g / (g.norm() + 1e-7)
    x = x.bfloat16() if bf16 else x
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.775 * a + 2.0315 * (a @ a)) @ x
    return (x.T if tall else x).float()


class Muon:
    def __init__(self, params, bf16):
        self.params, self.bf16 = list(params), bf16
        self.momentum = [torch.zeros_like(p) for p in self.params]

    @torch.no_grad()
    def step(self, lr):
        for p, m in zip(self.params, self.momentum):
            m.mul_(0.95).add_(p.grad)
            u = orthogonalise(p.grad + 0.95 * m, self.bf16)
            p.mul_(1 - 0.02 * lr).add_(u, alpha=-lr * max(1, p.shape[0] / p.shape[1])**0.5)


def batch(rng, data, n, length):
    at = rng.integers(0, len(data) - length - 1, n)
    x = np.stack([data[i:i + length + 1] for i in at]).astype(np.int64)
    return torch.from_numpy(x)


def cross_entropy(h, weight, want):
    return F.cross_entropy(F.linear(h, weight).float(), want, reduction="sum")


def loss_of(model, x, bf16, entropy=cross_entropy, chunk=1024):
    """The mean of -log p, over chunks of tokens so that the logits stay in the cache."""
    ctx = torch.autocast("cpu", dtype=torch.bfloat16) if bf16 else contextlib.nullcontext()
    with ctx:
        h = model(x[:, :-1]).reshape(-1, model.c.dim)
        want = x[:, 1:].reshape(-1)
        total = 0.0
        for i in range(0, len(want), chunk):
            total = total + entropy(h[i:i + chunk], model.token_embd.weight, want[i:i + chunk])
    return total / len(want)


@torch.no_grad()
def held_out(model, data, length, bf16, limit=None):
    """Nats a token over the held-out ids, in windows of length tokens without overlap."""
    n = (len(data) - 1) // length
    n = min(n, limit) if limit else n
    total = 0.0
    for i in range(0, n, 8):
        rows = range(i, min(i + 8, n))
        x = np.stack([data[r * length:r * length + length + 1] for r in rows]).astype(np.int64)
        total += loss_of(model, torch.from_numpy(x), bf16).item() * len(rows)
    return total / n


def average_gradients(model, workers):
    grads = [p.grad for p in model.parameters()]
    flat = torch.cat([g.reshape(-1) for g in grads])
    dist.all_reduce(flat)
    flat /= workers
    for g, part in zip(grads, flat.split([g.numel() for g in grads])):
        g.copy_(part.view_as(g))


def schedule(part, step):
    """Part of the time gone, from 0 to 1: the context and the factor of the learning rates."""
    length = [n for start, n in CONTEXTS if part >= start][-1]
    return length, min(1, (step + 1) / WARM_UP) * min(1, max(0.02, (1 - part) / (1 - DECAY_FROM)))


def train(rank, a):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{a.work.resolve()}/rendezvous",
                            rank=rank, world_size=a.workers)
    torch.manual_seed(0)
    rng, c, bf16 = np.random.default_rng(rank), Config(), not a.f32
    data = np.memmap(a.work / "train.bin", dtype=np.uint16, mode="r")
    held = np.fromfile(a.work / "held.bin", dtype=np.uint16)
    model = Model(c)
    if a.resume:
        model.load_state_dict(torch.load(a.work / "model.pt"))
    entropy = cross_entropy
    if hasattr(nn.Module, "compile") and not a.eager:
        entropy = torch.compile(cross_entropy, dynamic=False)
        for block in model.blk:
            block.compile(dynamic=False)
    names = {n for n, p in model.named_parameters() if p.dim() == 2 and n.startswith("blk.")}
    muon = Muon((p for n, p in model.named_parameters() if n in names), bf16)
    adam = torch.optim.Adam([p for n, p in model.named_parameters() if n not in names],
                            lr=LR_ADAM, betas=(0.9, 0.98))
    log = open(a.work / "train-log.jsonl", "a" if a.resume else "w") if rank == 0 else None

    def note(**fields):
        if rank == 0:
            print(json.dumps(fields), flush=True)
            print(json.dumps(fields), file=log, flush=True)

    note(config=dataclasses.asdict(c), parameters=sum(p.numel() for p in model.parameters()),
         train_tokens=len(data), held_tokens=len(held), torch=torch.__version__, bf16=bf16,
         workers=a.workers, batch=BATCH, lr_muon=LR_MUON, lr_adam=LR_ADAM, minutes=a.minutes)
    start, step, tokens, mean, saved = time.time(), 0, 0, None, time.time()
    while True:
        clock = torch.tensor([(time.time() - start) / (60 * a.minutes)])
        dist.broadcast(clock, 0)  # all workers must agree on when to stop
        part = clock.item()
        if part >= 1:
            break
        length, rate = schedule(part, step)
        loss = loss_of(model, batch(rng, data, BATCH // a.workers // length, length), bf16,
                       entropy)
        model.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(model, a.workers)
        muon.step(LR_MUON * rate)
        for group in adam.param_groups:
            group["lr"] = LR_ADAM * rate
        adam.step()
        step, tokens = step + 1, tokens + BATCH
        mean = loss.item() if mean is None else 0.95 * mean + 0.05 * loss.item()
        if step % 20 == 0:
            spent = time.time() - start
            note(step=step, seconds=round(spent, 1), tokens=tokens, loss=round(mean, 4),
                 rate=round(rate, 3), length=length, tokens_per_s=round(tokens / spent))
        if rank == 0 and time.time() - saved > 120:
            saved = time.time()
            torch.save(model.state_dict(), a.work / "model.pt")
    dist.destroy_process_group()
    if rank == 0:
        torch.save(model.state_dict(), a.work / "model.pt")
        sizes = json.loads((a.work / "sizes.json").read_text())["held"]
        spent = round(time.time() - start)
        plain = Model(c)
        plain.load_state_dict(model.state_dict())
        for length in (256, 512, 1024):
            nats = held_out(plain, held, length, bf16)
            note(final=True, length=length, step=step, tokens=tokens, seconds=spent,
                 held_out_nats_per_token=round(nats, 4),
                 bits_per_byte=round(nats / np.log(2) * sizes["tokens"] / sizes["bytes"], 4))


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("work", type=pathlib.Path)
    ap.add_argument("--minutes", type=float, default=45)
    ap.add_argument("--workers", type=int, default=2)
    ap.add_argument("--resume", action="store_true", help="start from WORK/model.pt")
    ap.add_argument("--eager", action="store_true", help="no torch.compile")
    ap.add_argument("--f32", action="store_true", help="no bfloat16 (for processors without it)")
    a = ap.parse_args()
    (a.work / "rendezvous").unlink(missing_ok=True)
    torch.multiprocessing.spawn(train, (a,), a.workers)


if __name__ == "__main__":
    main()
