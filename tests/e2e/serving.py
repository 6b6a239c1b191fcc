"""A server of pal's for a test, on a port of its own."""
import http.client
import json
import signal
import socket
import subprocess
import tempfile
import time


class Server:
    """pal serve MODEL with options; ends with close()."""

    def __init__(self, pal, model, *options):
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            self.port = s.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.folder = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen([pal, "serve", model, "--port", str(self.port),
                                         "--data-dir", self.folder.name, *map(str, options)],
                                        stdin=subprocess.DEVNULL,
                                        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        end = time.monotonic() + 60
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > end:
                self.process.kill()
                raise AssertionError(f"no server: {self.process.communicate()[1].decode()}")
            time.sleep(0.02)

    def _answers(self):
        try:
            return self.ask("GET", "/health")[0] == 200
        except OSError:
            return False

    def ask(self, method, path, body=None, key=None):
        """The status, and the JSON of the reply."""
        c = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Content-Type": "application/json"}
        if key:
            headers["Authorization"] = f"Bearer {key}"
        try:
            c.request(method, path, None if body is None else json.dumps(body), headers)
            r = c.getresponse()
            return r.status, json.loads(r.read() or b"null")
        finally:
            c.close()

    def close(self):
        """Its exit status after SIGTERM, and what it said."""
        self.process.send_signal(signal.SIGTERM)
        said = self.process.communicate(timeout=60)[1]
        self.folder.cleanup()
        return self.process.returncode, said.decode()
