#!/usr/bin/python3
"""pal serve as whoever runs it meets it: options, files of options, signals, systemd; prints TAP.

serve.py PAL MODEL [unittest arguments]
"""
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import unittest

from tap import TapRunner

PAL, MODEL = (os.path.abspath(a) for a in sys.argv[1:3])
PATIENCE = 120
KEY, OTHER = "a-key-of-this-test", "another-key-of-this-test"


class Case(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name, text=None):
        path = os.path.join(self.folder, name)
        if text is not None:
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
        return path

    def serve(self, *args, quiet=("-q",), **environment):
        """A server that is ready, and where it is."""
        env = dict(os.environ, XDG_STATE_HOME=self.folder, **environment)
        server = subprocess.Popen([PAL, "serve", MODEL, *quiet, *args], env=env,
                                  stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(self.end, server)
        line = server.stdout.readline().decode()
        self.assertRegex(line, r"^http://[\w.:\[\]]+:\d+\n$")
        return server, line.split("//")[1].strip()

    def end(self, server):
        if server.poll() is None:
            server.kill()
        server.stdout.close()
        server.stderr.close()
        server.wait()

    def get(self, address, path, **headers):
        connection = http.client.HTTPConnection(address, timeout=PATIENCE)
        connection.request("GET", path, headers=headers)
        reply = connection.getresponse()
        body = reply.read()
        connection.close()
        return reply.status, body

    def fails(self, text, *args):
        p = subprocess.run([PAL, "serve", MODEL, "--port", "0", "--data-dir", self.folder, *args],
                           capture_output=True, timeout=PATIENCE, check=False)
        self.assertEqual((p.returncode, p.stdout), (1, b""), p.stderr)
        self.assertRegex(p.stderr.decode(), f"(?m)^pal: .*{text}.*$")


class Running(Case):
    def test_health_metrics_and_the_end(self):
        server, address = self.serve("--port", "0")
        status, body = self.get(address, "/health")
        self.assertEqual((status, json.loads(body)["status"]), (200, "ok"))
        status, body = self.get(address, "/metrics")
        self.assertEqual(status, 200)
        names = set()
        for line in body.decode().splitlines():
            self.assertRegex(line, r"^(# (HELP|TYPE) palimpsest_\w+ \S.*|palimpsest_\w+(\{.*\})? "
                                   r"[0-9.e+-]+)$")
            if line.startswith("# TYPE"):
                self.assertNotIn(line, names)
                names.add(line)
        self.assertIn("# TYPE palimpsest_sessions gauge", names)
        self.assertTrue(os.path.isdir(self.path("palimpsest")))
        self.assertEqual(os.stat(self.path("palimpsest")).st_mode & 0o777, 0o700)
        server.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(PATIENCE), 0)
        self.assertEqual(server.stderr.read(), b"")

    def test_interrupt(self):
        server, _ = self.serve("--port", "0", "--data-dir", self.path("a/b/c"))
        self.assertTrue(os.path.isdir(self.path("a/b/c")))
        server.send_signal(signal.SIGINT)
        self.assertEqual(server.wait(PATIENCE), 0)

    def test_second_signal(self):
        """A client that still sends its request does not hold it up; a second signal ends all."""
        server, address = self.serve("--port", "0")
        host, _, port = address.partition(":")
        with socket.create_connection((host, int(port))) as c:
            c.sendall(b"POST /v1/sessions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\n{")
            server.send_signal(signal.SIGTERM)
            try:
                server.send_signal(signal.SIGTERM)
            except ProcessLookupError:
                pass
            self.assertIn(server.wait(PATIENCE), (0, -signal.SIGTERM))

    def test_keys_are_read_again(self):
        keys = self.path("keys", KEY + "\n")
        server, address = self.serve("--port", "0", "--api-key-file", keys)

        def status(key):
            return self.get(address, "/metrics", Authorization=f"Bearer {key}")[0]

        self.assertEqual((status(KEY), status(OTHER)), (200, 401))
        self.path("keys", OTHER + "\n")
        server.send_signal(signal.SIGHUP)
        self.assertEqual(server.stderr.readline(), b"pal: keys read again\n")
        self.assertEqual((status(KEY), status(OTHER)), (401, 200))
        self.path("keys", "")
        server.send_signal(signal.SIGHUP)
        self.assertRegex(server.stderr.readline(), b"^pal: keys stay as they were: .*no key")
        self.assertEqual((status(KEY), status(OTHER)), (401, 200))

    def test_config(self):
        config = self.path("serve.conf", "# of the test\nport = 1\nhost = 127.0.0.1\n"
                           f"data-dir = {self.path('sessions')}\nsync = true\n"
                           "kv-budget = 1M\n")
        server, address = self.serve("--config", config, "--port", "0")
        self.assertNotEqual(address, "127.0.0.1:1")
        self.assertTrue(os.path.isdir(self.path("sessions")))
        self.assertEqual(self.get(address, "/health")[0], 200)
        server.send_signal(signal.SIGTERM)
        self.assertEqual(server.wait(PATIENCE), 0)

    def test_systemd(self):
        for name in (self.path("notify"), "\0pal-test-" + os.path.basename(self.folder)):
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
                s.bind(name)
                s.settimeout(PATIENCE)
                server, _ = self.serve("--port", "0",
                                       NOTIFY_SOCKET=name.replace("\0", "@"))
                self.assertEqual(s.recv(100), b"READY=1")
                server.send_signal(signal.SIGTERM)
                self.assertEqual(s.recv(100), b"STOPPING=1")
                self.assertEqual(server.wait(PATIENCE), 0)

    def test_log(self):
        server, address = self.serve("--port", "0", quiet=())
        self.get(address, "/health")
        entry = json.loads(server.stderr.readline())
        self.assertEqual((entry["method"], entry["route"], entry["status"]),
                         ("GET", "/health", 200))


class Mistakes(Case):
    def test_mistakes(self):
        self.fails("needs API keys .*--anyone", "--host", "0.0.0.0")
        self.fails("No such file", "--api-key-file", self.path("none"))
        self.fails("only one of them", "--tls-cert", self.path("none"))
        self.fails("--memory-limit x", "--memory-limit", "x")
        self.fails("--port 65536: must be", "--port", "65536")
        self.fails("conf:2: unknown option prot", "--config", self.path("conf", "\nprot = 3\n"))
        self.fails("conf:1: --port x", "--config", self.path("conf", "port = x\n"))
        self.fails("No such file", "--config", self.path("none"))
        self.fails("Not a directory|File exists", "--data-dir", self.path("conf", "") + "/x")
        with socket.socket() as s:
            s.bind(("127.0.0.1", 0))
            s.listen()
            self.fails("Address already in use", "--port", str(s.getsockname()[1]))


if __name__ == "__main__":
    unittest.main(testRunner=TapRunner, argv=[sys.argv[0], *sys.argv[3:]])
