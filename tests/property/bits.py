#!/usr/bin/python3
"""The same bits on every path: contract C2 over random models.

  bits.py PAL [--rounds N] [--seed N] [--neon-pal PATH] [--qemu PROGRAM] [--arch A] [--type T]

A round is one random model (tests/tools/mkmodel.py --random SEED; architectures and weight
types in turn, so that 64 rounds pair each with each) and random tokens. The bytes of
`pal logits` must be those of one thread, batches of 512 and the machine's best instruction
set for batches of 1, 2, 3, 7, 8, 16 and 64, for 2, 3 and 8 threads, for every instruction set
the machine has, and for a few random combinations of them all. NEON: a second program,
built for 64-bit ARM, under qemu. Speaks TAP; what cannot run here is listed as not run.
"""
import argparse
import os
from pathlib import Path
import platform
import shutil
import sys
import tempfile

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "tools"))

import numpy as np  # noqa: E402

import harness  # noqa: E402
import mkmodel  # noqa: E402
import quants  # noqa: E402

BATCHES, THREADS = (1, 2, 3, 7, 8, 16, 64, 512), (1, 2, 3, 8)
KV_TYPES = ("i16", "f16", "f32", "int8", "affine4")
TYPES = (*quants.TYPES, "mixed")  # 16, and 4 architectures
NEEDS = {  # what an x86 processor must offer for each instruction set
    "scalar": set(), "avx2": {"avx2", "fma", "f16c"},
    "avx512": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni"},
    "amx": {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "amx_tile", "amx_int8"},
}


def machine_sets():
    """The instruction sets of this machine, from its own description, not from pal."""
    if platform.machine() in ("aarch64", "arm64"):
        return ["scalar", "neon"]
    words = set(Path("/proc/cpuinfo").read_text().split("flags", 1)[-1].split("\n", 1)[0].split())
    return [name for name, need in NEEDS.items() if need <= words]


class Round:
    """One model and its tokens."""

    def __init__(self, args, seed, index, folder):
        self.args, self.seed = args, seed
        self.arch = args.arch or mkmodel.ARCHS[index % 4]
        # 16 is a multiple of 4: shift by one each time all types were used
        self.type = args.type or TYPES[(index + index // 16) % 16]
        self.spec = mkmodel.random_spec(seed, self.arch, self.type)
        self.path = os.path.join(folder, "model.gguf")
        mkmodel.write(self.path, self.spec)
        self.rng = np.random.default_rng([seed, 11])
        n = int(self.rng.integers(40, 101))
        self.ids = self.rng.integers(0, self.spec.vocab, n)
        self.kv = KV_TYPES[int(self.rng.integers(len(KV_TYPES)))]

    def variants(self, sets):
        """Options to compare: each axis alone, then random combinations."""
        some = lambda options: options[int(self.rng.integers(len(options)))]
        for batch in BATCHES[:-1]:
            yield ["--batch", str(batch), "-t", "1"]
        for threads in THREADS[1:]:
            yield ["--batch", "512", "-t", str(threads)]
        for isa in sets:
            yield ["--batch", "512", "-t", "1", "--isa", isa]
        for _ in range(3):
            yield ["--batch", str(some(BATCHES)), "-t", str(some(THREADS)), "--isa", some(sets)]

    def run(self, options, neon=False):
        program = self.args.neon if neon else [self.args.pal]
        command = [*program, "logits", self.path, "--kv-type", self.kv, *options]
        return harness.run(command, self.ids)

    def difference(self, got, want):
        """Where two outputs differ first, in words; empty when they are equal."""
        if got == want:
            return ""
        if len(got) != len(want):
            return f"{len(got)} bytes instead of {len(want)}"
        a, b = (np.frombuffer(x, "<u4").reshape(len(self.ids), -1) for x in (got, want))
        row, column = np.argwhere(a != b)[0]
        values = [np.frombuffer(x, "<f4").reshape(a.shape)[row, column] for x in (got, want)]
        return (f"first at token {row}, logit {column}: {values[0]!r} instead of {values[1]!r}; "
                f"{np.count_nonzero(a != b)} of {a.size} values, "
                f"{np.count_nonzero((a != b).any(axis=1))} of {len(a)} rows differ")

    def reproduce(self, options):
        ids = " ".join(map(str, self.ids))
        return (f"model: tests/tools/mkmodel.py m.gguf --random {self.seed} --arch {self.arch} "
                f"--type {self.type}\n  {self.spec.text()}\n"
                f"run:   echo {ids} | pal logits m.gguf --kv-type {self.kv} {' '.join(options)}\n"
                f"test:  tests/property/bits.py PAL --seed {self.seed} --rounds 1 "
                f"--arch {self.arch} --type {self.type}")


def compare(r, options, want, neon=False):
    """"" or what is wrong with one variant."""
    try:
        what = r.difference(r.run(options, neon), want)
    except harness.Failed as e:
        what = str(e)
    return f"{' '.join(options)}{' (neon program)' if neon else ''}: {what}" if what else ""


def play(tap, r, name, sets, neon):
    """One round; returns the number of comparisons made."""
    base = ["--batch", "512", "-t", "1"]
    try:
        want = r.run(base)
        logits = harness.rows(want, len(r.ids), "pal")
        if not np.isfinite(logits).all() or np.std(logits) == 0:
            raise harness.Failed("logits are not finite, or all the same")
    except harness.Failed as e:
        tap.check(False, name, f"{e}\n{r.reproduce(base)}")
        return 0
    jobs = [(options, False) for options in r.variants(sets)]
    if neon:
        jobs += [(["--batch", "512", "-t", "1", "--isa", isa], True) for isa in ("neon", "scalar")]
        jobs += [(["--batch", "7", "-t", "2", "--isa", "neon"], True)]
    wrong = [(options, text) for options, text in
             ((options, compare(r, options, want, on)) for options, on in jobs) if text]
    detail = "\n".join(text for _, text in wrong)
    tap.check(not wrong, f"{name}: {len(jobs) + 1} runs, equal bits",
              detail + "\n" + r.reproduce(wrong[0][0]) if wrong else "")
    return len(jobs)


def neon_command(args):
    """How to run the ARM program, or None."""
    if not args.neon_pal:
        return None
    if platform.machine() in ("aarch64", "arm64"):
        return [args.neon_pal]
    qemu = args.qemu or shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
    return [qemu, "-cpu", "max", *(["-L", args.sysroot] if args.sysroot else []), args.neon_pal]


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("pal")
    ap.add_argument("--rounds", type=int, default=int(os.environ.get("PAL_ROUNDS", 16)),
                    help="random models (default: $PAL_ROUNDS or 16)")
    ap.add_argument("--seed", type=int, default=1, help="of the first round; the others follow")
    ap.add_argument("--neon-pal", metavar="PATH", default=os.environ.get("PAL_NEON"),
                    help="pal built for 64-bit ARM (default: $PAL_NEON)")
    ap.add_argument("--qemu", metavar="PROGRAM", help="qemu's user mode for 64-bit ARM")
    ap.add_argument("--sysroot", metavar="DIR", default=os.environ.get("PAL_NEON_SYSROOT"),
                    help="its libraries, when it is not static (default: $PAL_NEON_SYSROOT)")
    ap.add_argument("--arch", choices=mkmodel.ARCHS)
    ap.add_argument("--type", choices=TYPES)
    args = ap.parse_args()
    args.neon = neon_command(args)
    tap = harness.Tap()
    sets = machine_sets()
    tap.note(f"seeds {args.seed} to {args.seed + args.rounds - 1}; instruction sets {' '.join(sets)}"
             + (" and neon" if args.neon else ""))
    compared = 0
    with tempfile.TemporaryDirectory() as folder:
        for index in range(args.rounds):
            r = Round(args, args.seed + index, index, folder)
            name = f"seed {r.seed} {r.arch} {r.type}, {len(r.ids)} tokens, {r.kv} K/V"
            compared += play(tap, r, name, sets, args.neon)
    tap.note(f"{compared} comparisons")
    for name in ("avx2", "avx512", "amx", "neon"):
        if name not in sets and not (name == "neon" and args.neon):
            tap.skip(name, "no program for 64-bit ARM was given" if name == "neon"
                     else "this machine does not have it")
    tap.finish()


if __name__ == "__main__":
    main()
