"""What the test programs in Python share: TAP output, and running the engines."""
import os
import subprocess
import sys
import tempfile

import numpy as np

TIMEOUT = 600  # seconds that one run of an engine may take


class Tap:
    """Prints TAP as results come, and knows the exit status."""

    def __init__(self):
        self.count = self.failures = self.passes = 0

    def _line(self, text):
        print(text, flush=True)

    def note(self, text):
        for line in str(text).splitlines():
            self._line("# " + line)

    def check(self, good, name, why=""):
        """One test; why is printed when it failed."""
        self.count += 1
        self.passes += bool(good)
        self.failures += not good
        self._line(f"{'ok' if good else 'not ok'} {self.count} - {name.replace('#', ' ')}")
        if not good and why:
            self.note(why)
        return good

    def skip(self, name, why):
        self.count += 1
        self._line(f"ok {self.count} - {name.replace('#', ' ')} # SKIP {why}")

    def finish(self):
        """Prints the plan and ends the program; a run in which nothing ran has failed."""
        self._line(f"1..{self.count}")
        sys.exit(0 if self.passes and not self.failures else 1)


class Failed(Exception):
    """A program did not do what was asked; the text says which and why."""


def run(command, ids=None):
    """Standard output (bytes) of a command that gets ids, one a line, on standard input."""
    data = None if ids is None else "".join(f"{i}\n" for i in ids).encode()
    # Output goes to a file: logits are large, and files are quicker than pipes here.
    with tempfile.TemporaryFile() as out:
        try:
            done = subprocess.run(command, input=data, stdout=out, stderr=subprocess.PIPE,
                                  timeout=TIMEOUT, check=False)
        except (OSError, subprocess.TimeoutExpired) as e:
            raise Failed(f"{' '.join(command)}: {e}") from e
        if done.returncode:
            raise Failed(f"{' '.join(command)}: exit status {done.returncode}: "
                         + done.stderr.decode(errors="replace").strip()[-600:])
        out.seek(0)
        return out.read()


def rows(raw, n, what):
    """Bytes of n rows of logits as float32 [n][n_vocab]."""
    if not raw or len(raw) % (4 * n):
        raise Failed(f"{what}: {len(raw)} bytes are not {n} rows of logits")
    return np.frombuffer(raw, dtype="<f4").reshape(n, -1)


def cores():
    return len(os.sched_getaffinity(0))
