"""A program in a pseudo-terminal: what is typed, and what appears."""
import os
import pty
import re
import select
import signal
import struct
import fcntl
import termios
import time

ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]|\r")


class Terminal:
    """Runs argv; `seen` is all output since the last expect(), without escape sequences."""

    def __init__(self, argv, env):
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execve(argv[0], argv, env)
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 200, 0, 0))
        self.raw = b""
        self.status = None

    def _read(self, timeout):
        """More output, or False when there is none in time or no more."""
        if not select.select([self.fd], [], [], timeout)[0]:
            return False
        try:
            data = os.read(self.fd, 65536)
        except OSError:  # the other side is closed
            return False
        self.raw += data
        return bool(data)

    @property
    def seen(self):
        return ESCAPES.sub(b"", self.raw).decode("utf-8", "replace")

    def expect(self, pattern, timeout=60):
        """Waits until the output matches; returns it up to the end of the match."""
        end = time.monotonic() + timeout
        while True:
            match = re.search(pattern, self.seen, re.DOTALL)
            if match:
                before = self.seen[:match.end()]
                self.raw = self.seen[match.end():].encode()
                return before
            left = end - time.monotonic()
            if left <= 0 or not self._read(left):
                raise AssertionError(f"{pattern!r} did not appear in {self.seen!r}")

    def type(self, text):
        os.write(self.fd, text.encode())

    def close(self):
        """Waits for the program to end; returns its exit code."""
        end = time.monotonic() + 30
        while time.monotonic() < end:
            self._read(0.05)
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                os.close(self.fd)
                return os.waitstatus_to_exitcode(status)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)
        os.close(self.fd)
        raise AssertionError("the program did not end")
