#!/usr/bin/python3
"""The HTTP server and its bad clients, over raw sockets; prints TAP.

transport.py HTTPD [unittest arguments]

HTTPD (httpd.c) has a few handlers and takes limits as arguments. What a handler sees, what every
error looks like, what is let in, and that nothing that a client does or omits costs more than it
may: memory, descriptors, threads.
"""
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest

from tap import TapRunner

HTTPD = os.path.abspath(sys.argv[1])
PATIENCE = 60  # seconds for what comes at once on a machine that is not busy
KEY, OTHER = "k" * 20, "another-key-of-this-test"


class Reply:
    def __init__(self, head, body):
        lines = head.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split()[1])
        self.headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()
        self.body = body

    def json(self):
        return json.loads(self.body)


class Client:
    """One connection."""

    def __init__(self, port, host="127.0.0.1", tls=None):
        self.socket = socket.create_connection((host, port), timeout=PATIENCE)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_hostname="localhost")
        self.data = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, *parts):
        self.socket.sendall(b"".join(p.encode() if isinstance(p, str) else p for p in parts))

    def ask(self, method, path, body=None, headers=()):
        lines = [f"{method} {path} HTTP/1.1"]
        if not any(h.lower().startswith("host:") for h in headers):
            lines.append("Host: localhost")
        lines += headers
        if body is not None:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join(lines), "\r\n\r\n", body or b"")
        return self

    def more(self):
        data = self.socket.recv(65536)
        self.data += data
        return bool(data)

    def take(self, n):
        while len(self.data) < n and self.more():
            pass
        taken, self.data = self.data[:n], self.data[n:]
        return taken

    def take_to(self, end):
        while end not in self.data:
            if not self.more():
                raise EOFError(f"closed after {self.data!r}")
        taken, _, self.data = self.data.partition(end)
        return taken

    def head(self):
        return Reply(self.take_to(b"\r\n\r\n"), b"")

    def chunk(self):
        n = int(self.take_to(b"\r\n"), 16)
        data = self.take(n)
        self.take(2)
        return data

    def reply(self, bodiless=False):
        r = self.head()
        while r.status == 100:
            r = self.head()
        if bodiless or r.status == 204:
            return r
        if r.headers.get("transfer-encoding") == "chunked":
            for piece in iter(self.chunk, b""):
                r.body += piece
        else:
            r.body = self.take(int(r.headers["content-length"]))
        return r

    def closed(self):
        """Whether the server ends the connection, with nothing more to say."""
        try:
            return not self.data and self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


class Server:
    def __init__(self, *options):
        self.process = subprocess.Popen([HTTPD, *options], stdin=subprocess.PIPE,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.log, self.noise = [], []
        self.reader = threading.Thread(target=self.read_log)
        self.reader.start()
        line = self.process.stdout.readline().decode().strip()
        self.port = int(line) if line.isdigit() else None
        self.said = line

    def read_log(self):
        for line in self.process.stderr:
            try:
                self.log.append(json.loads(line))
            except ValueError:
                self.noise.append(line.decode(errors="replace"))

    def order(self, text):
        self.process.stdin.write(f"{text}\n".encode())
        self.process.stdin.flush()
        return self.process.stdout.readline().decode().strip()

    def metrics(self):
        self.process.stdin.write(b"metrics\n")
        self.process.stdin.flush()
        return "".join(line.decode() for line in iter(self.process.stdout.readline, b".\n"))

    def until(self, text, good):
        """The answer to an order, once it is good."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            answer = self.order(text)
            if good(int(answer)):
                return int(answer)
            time.sleep(0.01)
            # libmicrohttpd may clear away a closed connection at the next event only.
            self.connect().socket.close()
        raise AssertionError(f"{text} stays {answer}")

    def until_logged(self, n):
        end = time.monotonic() + PATIENCE
        while len(self.log) < n:
            if time.monotonic() > end:
                raise AssertionError(f"{len(self.log)} entries of the log, not {n}")
            time.sleep(0.01)
            self.connect().socket.close()  # as above

    def connect(self, **more):
        return Client(self.port, **more)

    def ask(self, *args, **more):
        with self.connect() as c:
            return c.ask(*args, **more).reply()

    def close(self):
        self.process.stdin.close()
        last = self.process.stdout.read().decode()
        self.process.stdout.close()
        code = self.process.wait(PATIENCE)
        self.reader.join()
        self.process.stderr.close()
        return code, last


class Case(unittest.TestCase):
    def serve(self, *options):
        server = Server(*options)
        self.addCleanup(self.stop, server)
        self.assertIsNotNone(server.port, server.said)
        return server

    def stop(self, server):
        """Every server ends well, and gives all its memory back."""
        code, last = server.close()
        self.assertEqual((code, last, server.noise), (0, "live 0\n", []))

    def error(self, reply, status, code=None, kind="invalid_request_error", known=True):
        """known: its request had begun, and so has an id."""
        self.assertEqual(reply.status, status, reply.body)
        self.assertEqual(reply.headers["content-type"], "application/json")
        error = reply.json()["error"]
        self.assertEqual(sorted(error), ["code", "message", "param", "type"])
        self.assertEqual((error["type"], error["code"]), (kind, code), error)
        self.assertRegex(reply.headers.get("x-request-id", ""), "^req_[0-9a-f]{16}$" if known
                         else "^$")
        return error["message"]


class Requests(Case):
    def setUp(self):
        self.server = self.serve()

    def test_what_handlers_see(self):
        r = self.server.ask("GET", "/items/a%20%2Fb%C3%A9?q=1+2%26&r=3", headers=["X-TEST: yes"])
        self.assertEqual(r.status, 200)
        self.assertEqual(r.json(), {"method": "GET", "path": "/items/a%20%2Fb%C3%A9", "bytes": 0,
                                    "sum": 0, "param": "a /bé", "query": "1 2&", "header": "yes",
                                    "owner": 0, "ends": True})
        body = bytes(range(256)) * 3
        r = self.server.ask("POST", "/items/x/sub/y", body).json()
        self.assertEqual((r["bytes"], r["sum"], r["ends"]), (len(body), sum(body), True))

    def test_headers_of_replies(self):
        r = self.server.ask("GET", "/open")
        self.assertEqual(r.headers["x-content-type-options"], "nosniff")
        self.assertEqual(r.headers["cache-control"], "no-store")
        self.assertNotIn("access-control-allow-origin", r.headers)
        ids = {self.server.ask("GET", "/open").headers["x-request-id"] for _ in range(20)}
        self.assertEqual(len(ids), 20)

    def test_absolute_target(self):
        r = self.server.ask("GET", "http://localhost/items/3?q=4").json()
        self.assertEqual((r["param"], r["query"]), ("3", "4"))

    def test_no_such_place(self):
        for path in ("/none", "/items", "/items/", "/items/a/b", "/echo/", "//", "/items//sub/x"):
            self.error(self.server.ask("GET", path), 404, "not_found")

    def test_wrong_method(self):
        r = self.server.ask("PUT", "/items/a", b"x")
        self.error(r, 405, "method_not_allowed")
        self.assertEqual(r.headers["allow"], "GET, HEAD, DELETE, OPTIONS")

    def test_bad_urls(self):
        for path in ("/items/%", "/items/%4", "/items/%zz", "/items/a%00b", "/items/%ff",
                     "/items/%C3", "/?q=%e9", "/" + "x/" * 20, "/?" + "a=b&" * 40):
            self.error(self.server.ask("GET", path), 400, "invalid_url")
        with self.server.connect() as c:
            c.send(b"GET /items/\xff\xfe HTTP/1.1\r\nHost: localhost\r\n\r\n")
            self.error(c.reply(), 400, "invalid_url")

    def test_head(self):
        with self.server.connect() as c:
            r = c.ask("HEAD", "/items/a").reply(bodiless=True)
            self.assertEqual(r.status, 200)
            self.assertGreater(int(r.headers["content-length"]), 50)
            self.assertEqual(c.ask("GET", "/items/b").reply().json()["param"], "b")
            self.assertEqual(c.ask("HEAD", "/none").reply(bodiless=True).status, 404)
            self.assertEqual(c.ask("HEAD", "/echo").reply(bodiless=True).status, 405)
        with self.server.connect() as c:
            self.assertEqual(c.ask("HEAD", "/flood").reply(bodiless=True).status, 200)
            self.server.until("gone", lambda n: n == 1)

    def test_options(self):
        r = self.server.ask("OPTIONS", "/items/a")
        self.assertEqual((r.status, r.headers["allow"]), (204, "GET, HEAD, DELETE, OPTIONS"))
        self.assertNotIn("access-control-allow-methods", r.headers)

    def test_connections_are_kept(self):
        with self.server.connect() as c:
            for i in range(20):
                self.assertEqual(c.ask("GET", f"/items/{i}").reply().json()["param"], str(i))
                self.error(c.ask("GET", "/none").reply(), 404, "not_found")
                self.assertEqual(c.ask("POST", "/echo", b"abc").reply().json()["bytes"], 3)

    def test_pipelined(self):
        with self.server.connect() as c:
            for i in range(50):
                c.ask("POST", "/echo", b"x" * i)
            for i in range(50):
                self.assertEqual(c.reply().json()["bytes"], i)

    def test_http_1_0(self):
        with self.server.connect() as c:
            c.send("POST /mirror HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello")
            head = c.head()
            self.assertNotIn("transfer-encoding", head.headers)
            self.assertEqual(c.take(100), b"hello")

    def test_chunked_bodies(self):
        with self.server.connect() as c:
            c.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            for n in (1, 10, 70000, 3):
                c.send(f"{n:x}\r\n", b"z" * n, "\r\n")
            c.send("0\r\n\r\n")
            self.assertEqual(c.reply().json()["bytes"], 70014)

    def test_expect_continue(self):
        with self.server.connect() as c:
            c.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n"
                   "Expect: 100-continue\r\n\r\n")
            self.assertEqual(c.head().status, 100)
            c.send("abc")
            self.assertEqual(c.reply().json()["bytes"], 3)

    def test_streams(self):
        body = os.urandom(1 << 20)
        for piece in (997, 70000, 1 << 20):
            r = self.server.ask("POST", f"/mirror?piece={piece}", body)
            self.assertEqual(r.headers["transfer-encoding"], "chunked")
            self.assertTrue(r.body == body)

    def test_pieces_come_at_once(self):
        with self.server.connect() as c:
            c.ask("GET", "/hold").head()
            self.assertEqual(c.chunk(), b"data: 1\n\n")

    def test_no_reply_is_an_error(self):
        self.error(self.server.ask("GET", "/nothing"), 500, None, "server_error")

    def test_errors_of_handlers(self):
        r = self.server.ask("GET", "/failure")
        self.assertEqual(r.headers["retry-after"], "7")
        self.assertEqual(self.error(r, 429, "slow_down", "rate_limit_error"), "no more than 3")
        r = self.server.ask("POST", "/v1/messages", b"{}")
        self.assertEqual((r.status, r.json()), (429, {"type": "error", "error": {
            "type": "rate_limit_error", "message": "no more than 3"}}))
        self.assertEqual(self.server.ask("GET", "/v1/messages").json()["type"], "error")
        r = self.server.ask("GET", "/v1/messages/x").json()
        self.assertEqual(r["error"]["type"], "not_found_error")

    def test_no_http(self):
        """libmicrohttpd answers, or closes; and goes on."""
        for text in (b"\0\1\2\3\r\n\r\n", b"GET\r\n\r\n", b"\r\n" * 1000, b"GET / HTTP/9.9\r\n\r\n",
                     b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"\x16\x03\x01\x02\x00\x01",
                     b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
                     b"POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9e9\r\n\r\n",
                     b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
                     b"zz\r\n"):
            with self.server.connect() as c:
                c.send(text)
                c.socket.shutdown(socket.SHUT_WR)
                try:
                    answer = c.take(1 << 20)
                except ConnectionResetError:
                    answer = b""
                self.assertRegex(answer, rb"\A(HTTP/1.1 [45]\d\d |\Z)")
        self.assertEqual(self.server.ask("GET", "/open").status, 200)


class Limits(Case):
    def test_body(self):
        server = self.serve("body=1000")
        self.assertEqual(server.ask("POST", "/echo", b"x" * 1000).status, 200)
        self.error(server.ask("POST", "/echo", b"x" * 1001), 413, "request_too_large")
        self.assertEqual(server.ask("POST", "/small", b"x" * 100).status, 200)
        self.error(server.ask("POST", "/small", b"x" * 101), 413, "request_too_large")

    def test_body_is_refused_before_it_is_sent(self):
        server = self.serve()
        for length in (1 << 40, 1 << 62, (32 << 20) + 1):
            with server.connect() as c:
                c.send("POST /echo HTTP/1.1\r\nHost: localhost\r\n"
                       f"Content-Length: {length}\r\n\r\n")
                self.error(c.reply(), 413, "request_too_large")
        with server.connect() as c:
            c.send("POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n"
                   "Expect: 100-continue\r\n\r\n")
            r = c.reply()
            self.assertEqual((r.status, r.json()["error"]["type"]), (413, "request_too_large"))

    def test_large_bodies(self):
        """Sent to the end by clients that look for no answer before; which is there for them."""
        server = self.serve("body=100000")
        block = b"x" * 100000
        before = int(server.order("fds"))
        for _ in range(3):
            with server.connect() as c:
                c.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000000\r\n\r\n")
                for _ in range(1000):
                    c.send(block)
                self.error(c.reply(), 413, "request_too_large")
            with server.connect() as c:
                c.send("POST /echo HTTP/1.1\r\nHost: localhost\r\n"
                       "Transfer-Encoding: chunked\r\n\r\n")
                for _ in range(1000):
                    c.send("186a0\r\n", block, "\r\n")
                self.error(c.reply(), 413)
        server.until("fds", lambda n: n <= before)

    def test_refused_with_its_body(self):
        """A reply that comes before the body is not lost to a reset."""
        server = self.serve()
        with server.connect() as c:
            c.ask("POST", "/none", b"x" * 5000000)
            self.error(c.reply(), 404, "not_found")
            self.assertTrue(c.closed())

    def test_all_bodies_together(self):
        server = self.serve("body=1000")
        clients = [server.connect() for _ in range(20)]
        for c in clients:
            c.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n",
                   b"x" * 999)
        server.until("live", lambda n: n > 0)
        statuses = []
        for c in clients:
            try:
                c.send("x")
            except OSError:
                pass
            statuses.append(c.reply().status)
            c.socket.close()
        self.assertEqual(set(statuses), {200, 503})

    def test_headers(self):
        server = self.serve("header=2000")
        self.assertEqual(server.ask("GET", "/open", headers=["X-A: " + "a" * 1500]).status, 200)
        self.error(server.ask("GET", "/open", headers=["X-A: " + "a" * 2500]), 431,
                   "headers_too_large")
        for n in (50000, 5000000):
            with server.connect() as c:
                try:
                    c.ask("GET", "/open", headers=["X-A: " + "a" * n])
                    answer = c.take(1 << 20)
                except OSError:
                    answer = b""
                self.assertRegex(answer, rb"\A(HTTP/1.1 4\d\d |\Z)")

    def test_slow_headers(self):
        server = self.serve("request=0.3")
        for start in ("", "GET / HT", "GET / HTTP/1.1\r\nHost: localhost\r\nX-A: "):
            with server.connect() as c:
                c.send(start)
                self.error(c.reply(), 408, known=len(start) > 10)
                self.assertTrue(c.closed())

    def test_trickled(self):
        """What arrives byte by byte does not buy time."""
        server = self.serve("request=0.5")
        starts = ["GET / HTTP/1.1\r\nHost: localhost\r\nX-A: ",
                  "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
                  "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n"
                  "\r\nfff\r\n"]
        clients = [server.connect() for _ in starts]
        for c, start in zip(clients, starts):
            c.send(start)
        ended = set()
        while len(ended) < len(clients):
            for i, c in enumerate(clients):
                try:
                    c.send("x")
                except OSError:
                    ended.add(i)
            time.sleep(0.02)
        for c in clients:
            c.socket.close()
        server.until("live", lambda n: n < 40)
        server.until_logged(3)
        self.assertEqual([e["status"] for e in server.log], [408] * 3)

    def test_idle(self):
        server = self.serve("idle=1")
        with server.connect() as c:
            self.assertEqual(c.ask("GET", "/open").reply().status, 200)
            self.assertTrue(c.closed())

    def test_connections(self):
        server = self.serve("connections=3", "request=30")
        held = [server.connect().ask("GET", "/hold") for _ in range(3)]
        for c in held:
            c.head()
        r = server.ask("GET", "/open")
        self.error(r, 503, "too_many_connections", "server_error")
        self.assertEqual(r.headers["retry-after"], "1")
        for c in held:
            c.socket.close()
        server.until("gone", lambda n: n == 3)
        self.poll(server, 200)

    def poll(self, server, status):
        """A socket's end is seen in a moment."""
        end = time.monotonic() + PATIENCE
        while server.ask("GET", "/open").status != status:
            self.assertLess(time.monotonic(), end)

    def test_connections_of_one_address(self):
        server = self.serve("each=2")
        with server.connect() as a, server.connect() as b:
            self.assertEqual(a.ask("GET", "/open").reply().status, 200)
            self.assertEqual(b.ask("GET", "/open").reply().status, 200)
            self.error(server.ask("GET", "/open"), 429, "too_many_connections",
                       "rate_limit_error")
        self.poll(server, 200)

    def test_far_more_connections(self):
        server = self.serve("connections=5", "request=1")
        clients = [server.connect() for _ in range(200)]
        statuses = []
        for c in clients:
            try:
                c.ask("GET", "/open")
                statuses.append(c.reply().status)
            except (OSError, EOFError):
                statuses.append(0)
            c.socket.close()
        self.assertLessEqual(set(statuses), {0, 200, 408, 503})
        self.assertIn(503, statuses)
        self.poll(server, 200)

    def test_rate(self):
        server = self.serve("rate=0.001")
        self.assertEqual(server.ask("GET", "/items/a").status, 200)
        r = server.ask("GET", "/items/a")
        self.error(r, 429, "rate_limit_exceeded", "rate_limit_error")
        self.assertGreater(int(r.headers["retry-after"]), 900)
        self.assertEqual(server.ask("GET", "/open").status, 200)


class Clients(Case):
    def test_gone_while_something_is_sent(self):
        server = self.serve()
        for n in range(1, 4):
            with server.connect() as c:
                c.ask("GET", "/flood").head()
                c.take(100000)
            server.until("gone", lambda gone, n=n: gone == n)

    def test_gone_while_nothing_is_sent(self):
        server = self.serve()
        with server.connect() as c:
            c.ask("GET", "/hold").head()
            c.chunk()
        server.until("gone", lambda n: n == 1)
        with server.connect() as c:
            c.ask("GET", "/hold?silent")
            time.sleep(0.05)
        server.until("gone", lambda n: n == 2)

    def test_half_closed(self):
        server = self.serve()
        with server.connect() as c:
            c.ask("GET", "/hold?silent")
            time.sleep(0.05)
            c.socket.shutdown(socket.SHUT_WR)
            self.error(c.reply(), 503, "cancelled", "server_error")
        self.assertEqual(server.order("gone"), "1")

    def test_half_closed_and_idle(self):
        """It is cleared away, long before the time for idle connections is over."""
        server = self.serve("connections=1")
        for text in ("GET / HTTP/1.1\r\nHost: evil\r\n\r\n", "GET / HT", "",
                     "POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nab"):
            with server.connect() as c:
                c.send(text)
                c.socket.shutdown(socket.SHUT_WR)
                c.take(1 << 20)
                self.assertTrue(c.closed())
            end = time.monotonic() + PATIENCE
            while server.ask("GET", "/open").status != 200:
                self.assertLess(time.monotonic(), end)

    def test_reset(self):
        server = self.serve()
        c = server.connect().ask("GET", "/hold")
        c.head()
        c.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        c.socket.close()
        server.until("gone", lambda n: n == 1)

    def test_slow_reader(self):
        """The writer waits, and does not fill memory; and what it wrote is all there."""
        server = self.serve()
        body = os.urandom(8 << 20)
        with server.connect() as c:
            c.ask("POST", "/mirror?piece=50000", body)
            time.sleep(0.2)
            self.assertTrue(c.reply().body == body)

    def test_reader_that_stops(self):
        server = self.serve("idle=1")
        with server.connect() as c:
            c.ask("GET", "/flood").head()
            server.until("gone", lambda n: n == 1)

    def test_many(self):
        server = self.serve()
        statuses = []

        def work(i):
            for j in range(10):
                with server.connect() as c:
                    body = bytes([i]) * (j * 1000)
                    r = c.ask("POST", "/mirror", body).reply()
                    statuses.append(r.status if r.body == body else 0)
                    statuses.append(c.ask("GET", f"/wait/{j}").reply().status)

        threads = [threading.Thread(target=work, args=(i,)) for i in range(32)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(statuses, [200] * 640)

    def test_flat(self):
        """Nothing is left of any of these."""
        server = self.serve("request=0.2", "body=10000")

        def round():
            with server.connect() as c:
                c.ask("GET", "/hold").head()
            with server.connect() as c:
                c.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12")
            with server.connect() as c:
                c.send("GET / HTT")
            with server.connect() as c:
                c.ask("POST", "/echo", b"x" * 20000)
                c.reply()
            with server.connect() as c:
                c.ask("GET", "/items/%ff").reply()
            with server.connect() as c:
                c.ask("POST", "/mirror", b"y" * 10000)
            server.connect().socket.close()

        live, fds = int(server.order("live")), int(server.order("fds"))
        for _ in range(30):
            round()
        server.until("live", lambda n: n <= live)
        server.until("fds", lambda n: n <= fds)


class Memory(Case):
    def test_no_memory(self):
        """Wherever it runs out: an error or an end of the connection, and nothing is lost."""
        server = self.serve()
        live, statuses = int(server.order("live")), set()
        requests = [("GET", "/items/a?q=1", None), ("POST", "/echo", b"x" * 5000),
                    ("POST", "/mirror", b"x" * 5000), ("GET", "/none", None),
                    ("GET", "/failure", None), ("OPTIONS", "/echo", None)]
        for request in requests:
            for n in range(40):
                self.assertEqual(server.order(f"fail {n}"), "ok")
                try:
                    r = server.ask(*request)
                    statuses.add(r.status)
                    if r.status == 503:
                        self.assertIn("message", r.json()["error"])
                except (OSError, EOFError, ValueError):
                    statuses.add(0)
                self.assertEqual(server.order("fail -1"), "ok")
        self.assertEqual(statuses, {0, 200, 204, 404, 429, 503})
        server.until("live", lambda n: n <= live)


class Keys(Case):
    def setUp(self):
        self.file = tempfile.NamedTemporaryFile("w", suffix=".keys")
        self.addCleanup(self.file.close)
        self.write(f"# of the test\n\n{KEY}\n")

    def write(self, text):
        self.file.seek(0)
        self.file.truncate()
        self.file.write(text)
        self.file.flush()

    def test_keys(self):
        server = self.serve(f"keys={self.file.name}")
        for headers in ([], ["Authorization: Bearer"], [f"Authorization: Basic {KEY}"],
                        [f"Authorization: Bearer {KEY}x"], [f"X-Api-Key: {KEY[1:]}"],
                        [f"X-Api-Key: {OTHER}"], ["X-Api-Key: # of the test"], ["X-Api-Key:"]):
            r = server.ask("GET", "/items/a", headers=headers)
            self.error(r, 401, "invalid_api_key", "authentication_error")
            self.assertEqual(r.headers["www-authenticate"], "Bearer")
        owners = {server.ask("GET", "/items/a", headers=[h]).json()["owner"]
                  for h in (f"Authorization: Bearer {KEY}", f"authorization: bearer {KEY}",
                            f"X-API-Key: {KEY}")}
        self.assertEqual(len(owners), 1)
        self.assertNotEqual(owners, {0})
        self.assertEqual(server.ask("GET", "/open").json()["owner"], 0)
        with server.connect() as c:
            c.ask("POST", "/v1/messages", b"{}")
            self.assertEqual(c.reply().json()["error"]["type"], "authentication_error")

    def test_reload(self):
        server = self.serve(f"keys={self.file.name}")

        def status(key):
            return server.ask("GET", "/items/a", headers=[f"X-Api-Key: {key}"]).status

        self.write(f"  {OTHER}\t\r\n")
        self.assertEqual((status(KEY), status(OTHER)), (200, 401))
        self.assertEqual(server.order("reload"), "ok")
        self.assertEqual((status(KEY), status(OTHER)), (401, 200))
        for text, complaint in (("short\n", "line 1"), ("# none\n", "no key"), ("", "no key"),
                                (f"{KEY}\nwith blanks in its middle\n", "line 2"),
                                ("x" * 300, "line 1")):
            self.write(text)
            self.assertIn(complaint, server.order("reload"))
            self.assertEqual((status(KEY), status(OTHER)), (401, 200))

    def test_rates_are_of_keys(self):
        self.write(f"{KEY}\n{OTHER}\n")
        server = self.serve(f"keys={self.file.name}", "rate=0.001")
        statuses = [server.ask("GET", "/items/a", headers=[f"X-Api-Key: {key}"]).status
                    for key in (KEY, OTHER, KEY, OTHER)]
        self.assertEqual(statuses, [200, 200, 429, 429])

    def refused(self, text, *options):
        server = Server(*options)
        said = server.said
        code, _ = server.close()
        self.assertEqual((server.port, code), (None, 1))
        self.assertRegex(said, text)

    def test_refused_starts(self):
        self.refused("needs API keys", "host=0.0.0.0")
        self.refused("needs API keys", "host=::")
        self.refused("No such file", "keys=/none")
        self.refused("host none.invalid", "host=none.invalid", "anyone=1")
        self.refused("only one of them", "cert=x")
        self.refused("together", f"cert={self.file.name}", f"key={self.file.name}")
        self.write("")
        self.refused("no key", f"keys={self.file.name}")

    def test_off_loopback(self):
        for options in (["host=0.0.0.0", "anyone=1"], ["host=0.0.0.0", f"keys={self.file.name}"]):
            server = self.serve(*options)
            r = server.ask("GET", "/items/a", headers=["Host: elsewhere", f"X-Api-Key: {KEY}"])
            self.assertEqual(r.status, 200)


class Places(Case):
    def test_hosts(self):
        server = self.serve()
        for host in ("localhost", "localhost:80", "LOCALHOST", "127.0.0.1:8080", "[::1]:9"):
            self.assertEqual(server.ask("GET", "/", headers=[f"Host: {host}"]).status, 200)
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.nip.example:80", ""):
            self.error(server.ask("GET", "/", headers=[f"Host: {host}"]), 403,
                       "host_not_allowed", "permission_error")

    def test_pages_of_elsewhere(self):
        server = self.serve()
        for origin, status in (("http://localhost:80", 200), ("http://evil.example", 403),
                               ("null", 403), ("http://localhost:81", 403)):
            r = server.ask("POST", "/echo", b"", ["Host: localhost:80", f"Origin: {origin}"])
            self.assertEqual(r.status, status)
            self.assertNotIn("access-control-allow-origin", r.headers)

    def test_cors(self):
        server = self.serve("cors=https://app.example")
        asked = ["Origin: https://app.example", "Access-Control-Request-Method: POST",
                 "Access-Control-Request-Headers: authorization,x-custom"]
        r = server.ask("OPTIONS", "/echo", headers=asked)
        self.assertEqual(r.status, 204)
        self.assertEqual(r.headers["access-control-allow-origin"], "https://app.example")
        self.assertIn("POST", r.headers["access-control-allow-methods"])
        self.assertEqual(r.headers["access-control-allow-headers"], "authorization,x-custom")
        self.assertEqual(r.headers["vary"], "Origin")
        r = server.ask("POST", "/echo", b"", asked[:1])
        self.assertEqual(r.headers["access-control-allow-origin"], "https://app.example")
        r = server.ask("POST", "/none", b"", asked[:1])
        self.assertEqual(r.headers["access-control-allow-origin"], "https://app.example")
        r = server.ask("POST", "/echo", b"", ["Origin: https://other.example"])
        self.assertEqual((r.status, r.headers.get("access-control-allow-origin")), (403, None))

    def test_anybody(self):
        server = self.serve("cors=*")
        r = server.ask("POST", "/echo", b"", ["Origin: https://other.example"])
        self.assertEqual((r.status, r.headers["access-control-allow-origin"]), (200, "*"))


class Tls(Case):
    def setUp(self):
        if not shutil.which("openssl"):
            self.skipTest("openssl is not installed")
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.cert, self.key = (os.path.join(folder.name, n) for n in ("cert.pem", "key.pem"))
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                        "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", self.key, "-out",
                        self.cert, "-days", "2", "-subj", "/CN=localhost", "-addext",
                        "subjectAltName=DNS:localhost"], check=True, capture_output=True)
        self.tls = ssl.create_default_context(cafile=self.cert)

    def test_tls(self):
        server = self.serve(f"cert={self.cert}", f"key={self.key}", "request=1", "body=2000000")
        body = os.urandom(1 << 20)
        with server.connect(tls=self.tls) as c:
            self.assertTrue(c.ask("POST", "/mirror", body).reply().body == body)
            self.assertEqual(c.ask("GET", "/items/a").reply().json()["param"], "a")
            c.ask("POST", "/echo", b"x" * 2000001)
            self.error(c.reply(), 413, "request_too_large")
        with server.connect(tls=self.tls) as c:
            c.ask("GET", "/hold").head()
        server.until("gone", lambda n: n == 1)
        with server.connect() as c:  # no TLS
            c.ask("GET", "/")
            self.assertNotIn(b"HTTP/1.1 200", c.take(1000))
        with server.connect() as c:  # a handshake that never comes
            self.assertTrue(c.closed())
        with server.connect(tls=self.tls) as c:
            c.send("GET / HTTP/1.1\r\nX-A: ")
            self.assertTrue(c.closed())


class Stopping(Case):
    def test_what_runs_ends(self):
        server = self.serve()
        with server.connect() as c, server.connect() as idle:
            self.assertEqual(idle.ask("GET", "/open").reply().status, 200)
            c.ask("GET", "/wait/300")
            time.sleep(0.05)
            self.assertEqual(server.order("quiet"), "ok")
            with self.assertRaises(OSError):
                server.connect()
            self.assertEqual(c.reply().body, b"done")
            r = idle.ask("GET", "/open").reply()
            self.assertEqual((r.status, r.headers.get("connection")), (200, "close"))

    def test_close_with_clients(self):
        """A stream is cut; what is silent ends with an error; bodies on their way are dropped."""
        server = Server()
        stream, silent, body = (server.connect() for _ in range(3))
        stream.ask("GET", "/hold").head()
        stream.chunk()
        silent.ask("GET", "/hold?silent")
        body.send("POST /echo HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n12")
        time.sleep(0.1)
        self.assertEqual(server.close(), (0, "live 0\n"))
        self.error(silent.reply(), 503, "cancelled", "server_error")
        self.assertEqual(stream.take(100), b"")
        self.assertTrue(body.closed())
        for c in (stream, silent, body):
            c.socket.close()


class Reports(Case):
    def test_log_and_metrics(self):
        server = self.serve()
        secret = "fd1e0c55"
        # An entry is written when a request is over, which the next one need not wait for.
        for n, ask in enumerate((
                lambda: server.ask("GET", f"/items/{secret}?q={secret}"),
                lambda: server.ask("POST", "/echo", secret.encode(), [f"X-A: {secret}"]),
                lambda: server.ask("GET", f"/{secret}"),
                lambda: server.ask(secret.upper(), "/echo")), 1):
            ask()
            server.until_logged(n)
        log = server.log
        self.assertEqual([(e["method"], e["route"], e["status"]) for e in log],
                         [("GET", "/items/{id}", 200), ("POST", "/echo", 200), ("", "", 404),
                          ("", "", 405)])
        for e in log:
            self.assertEqual(sorted(e), ["bytes", "id", "method", "ms", "owner", "route", "status",
                                         "time"])
            self.assertGreater(e["bytes"], 0)
            self.assertNotIn(secret, json.dumps(e).lower())
        text = server.metrics()
        self.assertNotIn(secret, text.lower())
        for line in ('palimpsest_http_request_seconds_count{method="GET",route="/items/{id}",'
                     'status="200"} 1', 'status="404"} 1',
                     f"palimpsest_http_sent_bytes_total {sum(e['bytes'] for e in log)}"):
            self.assertIn(line, text)
        for line in text.splitlines():
            self.assertRegex(line, r'^(# (HELP|TYPE) \S+ .+|[a-z_]+(\{[^}]*(\{\w+\}[^}]*)*\})? '
                                   r'[0-9.e+-]+)$')


if __name__ == "__main__":
    unittest.main(testRunner=TapRunner, argv=[sys.argv[0], *sys.argv[2:]])
