#!/usr/bin/python3
"""kakeya.v1.RuntimeService of pal serve as the official gRPC client sees it, as TAP.

runtime.py PAL MODEL [unittest arguments]

The messages are written down here once more, as clients have them, and compiled by the official
compiler. grpcio and grpcio-tools come from PyPI, fetched once into
$XDG_CACHE_HOME/palimpsest-tests/grpc.
"""
import json
import math
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import unittest

from tap import TapRunner

PAL, MODEL = (os.path.abspath(a) for a in sys.argv[1:3])
PROTO = """
syntax = "proto3";
package kakeya.v1;
message CreateSessionRequest { string client_label = 1; repeated uint32 eos_token_ids = 2; }
message CreateSessionResponse { string session_id = 1; }
message AppendTokensRequest { string session_id = 1; repeated uint32 token_ids = 2; }
message AppendTokensResponse { uint64 history_length = 1; }
message GenerateRequest {
  string session_id = 1;
  uint32 max_tokens = 2;
  optional uint64 seed = 3;
  optional float temperature = 4;
  optional float top_p = 5;
  optional uint32 top_k = 6;
}
message GenerateResponse {
  oneof payload { uint32 token_id = 1; GenerateDone done = 2; HistoryTruncated truncated = 3; }
}
message GenerateDone {
  enum StopReason {
    STOP_REASON_UNSPECIFIED = 0;
    STOP_REASON_MAX_TOKENS = 1;
    STOP_REASON_EOS = 2;
    STOP_REASON_CANCELLED = 3;
    STOP_REASON_TRUNCATED = 4;
  }
  StopReason stop_reason = 1;
  uint32 generated_token_count = 2;
  double prefill_duration_seconds = 3;
  double total_duration_seconds = 4;
}
message HistoryTruncated { uint64 dropped_token_count = 1; }
message CloseSessionRequest { string session_id = 1; }
message CloseSessionResponse { uint64 final_history_length = 1; }
message GetSessionInfoRequest { string session_id = 1; }
message GetSessionInfoResponse {
  uint64 history_length = 1;
  uint64 kv_live_bytes = 2;
  uint64 cache_invariant_inv1_violations = 3;
  uint64 cache_invariant_inv2_violations = 4;
  double idle_seconds = 5;
}
service RuntimeService {
  rpc CreateSession(CreateSessionRequest) returns (CreateSessionResponse);
  rpc AppendTokens(AppendTokensRequest) returns (AppendTokensResponse);
  rpc Generate(GenerateRequest) returns (stream GenerateResponse);
  rpc CloseSession(CloseSessionRequest) returns (CloseSessionResponse);
  rpc GetSessionInfo(GetSessionInfoRequest) returns (GetSessionInfoResponse);
}
"""
MAX_TOKENS, EOS = 1, 2


def fetch():
    """grpcio on the path, and the messages as a module."""
    cache = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
                         "palimpsest-tests/grpc")
    if not os.path.exists(os.path.join(cache, "grpc_tools/protoc.py")):
        done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet",
                               "--disable-pip-version-check", "--target", cache, "grpcio",
                               "grpcio-tools"], capture_output=True, text=True, timeout=300,
                              check=False)
        if done.returncode:
            sys.exit("fetching grpcio with pip: " + done.stderr.strip()[-400:])
    made = tempfile.mkdtemp()
    with open(os.path.join(made, "client.proto"), "w", encoding="utf-8") as f:
        f.write(PROTO)
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", made, "--python_out", made,
                    "--grpc_python_out", made, "client.proto"], check=True, cwd=made,
                   env={**os.environ, "PYTHONPATH": cache})
    sys.path[:0] = [cache, made]
    return made


MADE = fetch()
import grpc  # noqa: E402
import client_pb2 as pb  # noqa: E402
import client_pb2_grpc  # noqa: E402

Code = grpc.StatusCode


class Server:
    """pal serve, and a client of it."""

    def __init__(self, *args, credentials=None):
        self.folder = tempfile.TemporaryDirectory()
        self.process = subprocess.Popen(
            [PAL, "serve", MODEL, "--port", "0", "--grpc-port", "0", "--window", "256",
             "--data-dir", self.folder.name, *args], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.port, self.said = None, []
        for line in self.process.stdout:
            self.said.append(line)
            m = re.search(r"gRPC.*:(\d+)", line)
            if m:
                self.port = int(m.group(1))
                break
        if self.port is None:
            raise RuntimeError("pal serve did not start: " + "".join(self.said))
        self.drain = threading.Thread(target=lambda: self.said.extend(self.process.stdout))
        self.drain.start()
        self.channel = self.connect(credentials)
        self.stub = client_pb2_grpc.RuntimeServiceStub(self.channel)

    def connect(self, credentials=None):
        if credentials:
            return grpc.secure_channel(f"localhost:{self.port}", credentials)
        return grpc.insecure_channel(f"127.0.0.1:{self.port}")

    def stop(self, terminate=True):
        """Its exit status."""
        self.channel.close()
        if terminate:
            self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        self.folder.cleanup()
        self.drain.join()
        self.process.stdout.close()
        if status:
            print(*("# " + line.rstrip() for line in self.said), sep="\n")
        return status


class Case(unittest.TestCase):
    server = None

    @classmethod
    def setUpClass(cls):
        cls.server = Server()
        cls.stub = cls.server.stub
        run = subprocess.run([PAL, "run", MODEL, "-p", "x", "-n", "1", "--json"],
                             capture_output=True, check=True)
        cls.n_vocab = json.loads(run.stdout)["model"]["n_vocab"]

    @classmethod
    def tearDownClass(cls):
        status = cls.server.stop()
        if status:
            raise AssertionError(f"pal serve ended with {status}")

    def code(self, expected, call, *args, **more):
        """The call fails with this status; its text."""
        with self.assertRaises(grpc.RpcError) as caught:
            result = call(*args, **more)
            if hasattr(result, "__iter__"):
                list(result)
        self.assertEqual(caught.exception.code(), expected, caught.exception.details())
        self.assertTrue(caught.exception.details())
        return caught.exception.details()

    def ids(self, n, seed=1):
        r = random.Random(seed)
        return [r.randrange(self.n_vocab) for _ in range(n)]

    def session(self, ids=(), eos=()):
        s = self.stub.CreateSession(pb.CreateSessionRequest(client_label="t", eos_token_ids=eos))
        self.assertRegex(s.session_id, r"^sess-[0-9a-f]{32}$")
        if ids:
            self.assertEqual(self.append(s.session_id, ids), len(ids))
        return s.session_id

    def append(self, s, ids):
        return self.stub.AppendTokens(
            pb.AppendTokensRequest(session_id=s, token_ids=ids)).history_length

    def start(self, s, n, timeout=None, **sampling):
        return self.stub.Generate(pb.GenerateRequest(session_id=s, max_tokens=n, **sampling),
                                  timeout=timeout)

    def generate(self, s, n, reason=MAX_TOKENS, **sampling):
        """The tokens of a stream that has the shape that it must have."""
        messages = list(self.start(s, n, **sampling))
        kinds = [m.WhichOneof("payload") for m in messages]
        self.assertEqual(kinds, ["token_id"] * (len(messages) - 1) + ["done"])
        done = messages[-1].done
        self.assertEqual(done.stop_reason, reason)
        self.assertEqual(done.generated_token_count, len(messages) - 1)
        self.assertGreater(done.total_duration_seconds, 0)
        self.assertTrue(0 < done.prefill_duration_seconds <= done.total_duration_seconds)
        return [m.token_id for m in messages[:-1]]

    def info(self, s):
        return self.stub.GetSessionInfo(pb.GetSessionInfoRequest(session_id=s))

    def length(self, s):
        i = self.info(s)
        self.assertEqual((i.cache_invariant_inv1_violations, i.cache_invariant_inv2_violations),
                         (0, 0))
        return i.history_length

    def close(self, s):
        return self.stub.CloseSession(pb.CloseSessionRequest(session_id=s)).final_history_length

    def free(self, s):
        """Waits until nothing runs on the session."""
        while True:
            try:
                return self.append(s, [])
            except grpc.RpcError as e:
                self.assertEqual(e.code(), Code.ABORTED)


class Sessions(Case):
    def test_life(self):
        s = self.session()
        self.assertEqual((self.length(s), self.info(s).kv_live_bytes), (0, 0))
        self.assertEqual(self.append(s, []), 0)
        self.assertEqual(self.append(s, [1, 2, 3]), 3)
        self.assertEqual(self.append(s, []), 3)
        self.assertEqual(self.append(s, self.ids(700)), 703)
        i = self.info(s)
        self.assertEqual(i.history_length, 703)
        self.assertGreater(i.kv_live_bytes, 0)
        self.assertGreaterEqual(i.idle_seconds, 0)
        self.assertEqual(len(self.generate(s, 5)), 5)
        self.assertEqual(self.length(s), 708)
        self.assertEqual(self.info(s).kv_live_bytes, i.kv_live_bytes)
        self.assertEqual(self.close(s), 708)

    def test_unknown_and_closed(self):
        closed = self.session([1])
        self.close(closed)
        for s in (closed, "", "x" * 10000, "sess-" + "0" * 32):
            self.code(Code.NOT_FOUND, self.close, s)
            self.code(Code.NOT_FOUND, self.info, s)
            self.code(Code.NOT_FOUND, self.append, s, [1])
            self.code(Code.NOT_FOUND, self.append, s, [])
            self.code(Code.NOT_FOUND, self.start, s, 1)

    def test_wrong_values(self):
        s = self.session([1, 2])
        for wrong in (self.n_vocab, 2**31 - 1, 2**31, 2**32 - 1):
            for ids in ([wrong], [1, wrong], [wrong] + [1] * 500):
                self.code(Code.INVALID_ARGUMENT, self.append, s, ids)
            self.code(Code.INVALID_ARGUMENT, self.session, (), [wrong])
        self.assertEqual(self.length(s), 2)
        self.code(Code.INVALID_ARGUMENT, self.start, s, 0)
        self.code(Code.INVALID_ARGUMENT, self.start, self.session(), 1)
        self.code(Code.INVALID_ARGUMENT, self.session, (), [1] * 1000)
        for wrong in ({"temperature": -1}, {"temperature": math.nan}, {"top_p": 1.5},
                      {"top_p": -1}):
            self.code(Code.INVALID_ARGUMENT, self.start, s, 1, **wrong)
        self.assertEqual(self.length(s), 2)

    def test_report(self):
        s = self.session(self.ids(40))
        stream = self.start(s, 4)
        list(stream)
        _, call = self.stub.AppendTokens.with_call(
            pb.AppendTokensRequest(session_id=s, token_ids=[1]))
        for c, length in ((stream, 44), (call, 45)):
            [text] = [v for k, v in c.trailing_metadata() if k == "palimpsest-report"]
            report = json.loads(text)
            self.assertEqual((report["session"], report["log_length"]), (s, length))
            self.assertEqual(report["committed"], length)
            self.assertGreater(report["kv_bytes"], 0)
            self.assertIn("generate", report["ms"])


class Generation(Case):
    def test_like_run(self):
        ids = self.ids(50)
        run = subprocess.run([PAL, "run", MODEL, "--ids", "-n", "30", "-q", "--ignore-eos"],
                             input="\n".join(map(str, ids)), capture_output=True, check=True,
                             text=True)
        self.assertEqual(self.generate(self.session(ids), 30),
                         [int(line) for line in run.stdout.split()])

    def test_splits(self):
        """However a history was put together: the same tokens."""
        ids = self.ids(600)
        for sampling in ({}, {"temperature": 0.9, "seed": 2**64 - 1, "top_p": 0.95, "top_k": 40}):
            whole = self.generate(self.session(ids), 40, **sampling)
            for cuts in ([1], [599], range(0, 600, 37), [100, 101, 400]):
                s, at = self.session(), 0
                for cut in (*cuts, 600):
                    self.append(s, ids[at:cut])
                    at = cut
                self.assertEqual(self.generate(s, 40, **sampling), whole)

    def test_generated_is_history(self):
        ids = self.ids(30)
        whole = self.generate(self.session(ids), 20, temperature=1, seed=5)
        s = self.session(ids)
        parts = [self.generate(s, n, temperature=1, seed=5) for n in (1, 7, 12)]
        self.assertEqual(sum(parts, []), whole)
        s = self.session(ids + whole[:9])
        self.assertEqual(self.generate(s, 11, temperature=1, seed=5), whole[9:])

    def test_sampling(self):
        ids = self.ids(30)
        once = lambda **sampling: self.generate(self.session(ids), 20, **sampling)
        self.assertEqual(once(temperature=2, seed=3), once(temperature=2, seed=3))
        self.assertNotEqual(once(temperature=2, seed=3), once(temperature=2, seed=4))
        self.assertEqual(once(temperature=2), once(temperature=2, seed=0))
        for greedy in ({"temperature": 0}, {"seed": 9}, {"temperature": 2, "top_k": 1, "seed": 1},
                       {"temperature": 2, "top_k": 2**32 - 1, "top_p": 0, "seed": 1}):
            self.assertEqual(once(**greedy), once())

    def test_end(self):
        ids = self.ids(30)
        free = self.generate(self.session(ids), 30, temperature=1, seed=8)
        for k in (0, 4, 9):
            end = free[k]
            first = free.index(end)
            s = self.session(ids, eos=[self.n_vocab - 1, end])
            if self.n_vocab - 1 in free[:first]:
                continue
            self.assertEqual(self.generate(s, 30, reason=EOS, temperature=1, seed=8),
                             free[:first + 1])
            self.assertEqual(self.length(s), 30 + first + 1)
            self.assertEqual(self.generate(self.session(ids, eos=[end]), first + 1, reason=EOS,
                                           temperature=1, seed=8), free[:first + 1])
            if end not in free[first + 1:]:
                self.assertEqual(self.generate(s, 5, temperature=1, seed=8),
                                 free[first + 1:first + 6])

    def test_together(self):
        """Sessions that run at once do not change each other's tokens."""
        alone = [self.generate(self.session(self.ids(20 * k + 1, k)), 40) for k in range(12)]
        got = [None] * 12

        def one(k):
            got[k] = self.generate(self.session(self.ids(20 * k + 1, k)), 40)
        threads = [threading.Thread(target=one, args=(k,)) for k in range(12)]
        for t in threads:
            t.start()
        for t in threads:
            t.join()
        self.assertEqual(got, alone)


class Interrupted(Case):
    def test_second_operation(self):
        s = self.session([1])
        stream = self.start(s, 10**6)
        next(stream)
        self.code(Code.ABORTED, self.start, s, 1)
        self.code(Code.ABORTED, self.append, s, [1])
        self.code(Code.ABORTED, self.append, s, [])
        self.code(Code.ABORTED, self.close, s)
        self.assertEqual(self.info(s).idle_seconds, 0)
        next(stream)
        stream.cancel()
        self.free(s)
        self.close(s)

    def test_cancel(self):
        s = self.session([1])
        stream = self.start(s, 10**6)
        seen = [next(stream).token_id for _ in range(20)]
        stream.cancel()
        with self.assertRaises(grpc.RpcError):
            list(stream)
        self.assertEqual(stream.code(), Code.CANCELLED)
        length = self.free(s)
        self.assertTrue(21 <= length < 10**6)
        self.assertEqual(self.length(s), length)
        self.assertEqual(self.generate(self.session([1]), 20), seen)
        self.assertEqual(len(self.generate(s, 3)), 3)
        self.assertEqual(self.length(s), length + 3)

    def test_the_rest_has_the_same_bits(self):
        ids = self.ids(10)
        whole = self.generate(self.session(ids), 100, temperature=1, seed=1)
        for seen in (1, 3, 20):
            s = self.session(ids)
            stream = self.start(s, 100, temperature=1, seed=1)
            for k in range(seen):
                self.assertEqual(next(stream).token_id, whole[k])
            stream.cancel()
            made = self.free(s) - len(ids)
            self.assertGreaterEqual(made, seen)
            if made < 100:
                self.assertEqual(self.generate(s, 100 - made, temperature=1, seed=1), whole[made:])

    def test_deadline(self):
        s = self.session([1])
        self.code(Code.DEADLINE_EXCEEDED, self.start, s, 10**6, timeout=0.3)
        length = self.free(s)
        self.assertEqual(len(self.generate(s, 2)), 2)
        self.assertEqual(self.length(s), length + 2)

    def test_client_that_goes(self):
        s = self.session([1])
        channel = self.server.connect()
        stub = client_pb2_grpc.RuntimeServiceStub(channel)
        next(stub.Generate(pb.GenerateRequest(session_id=s, max_tokens=10**6)))
        channel.close()
        self.free(s)
        self.assertEqual(len(self.generate(s, 2)), 2)

    def test_server_that_goes(self):
        """What runs may end."""
        server = Server()
        s = server.stub.CreateSession(pb.CreateSessionRequest()).session_id
        server.stub.AppendTokens(pb.AppendTokensRequest(session_id=s, token_ids=[1]))
        stream = server.stub.Generate(pb.GenerateRequest(session_id=s, max_tokens=100))
        first = next(stream)
        server.process.send_signal(signal.SIGTERM)
        rest = list(stream)
        self.assertEqual([first.token_id] + [m.token_id for m in rest[:-1]],
                         self.generate(self.session([1]), 100))
        self.assertEqual(rest[-1].done.stop_reason, MAX_TOKENS)
        self.assertEqual(server.stop(terminate=False), 0)


class Hostile(Case):
    def raw(self, name, request):
        return self.server.channel.unary_unary(name)(request)

    def test_messages(self):
        path = "/kakeya.v1.RuntimeService/"
        r = random.Random(7)
        for name in ("CreateSession", "AppendTokens", "Generate", "CloseSession",
                     "GetSessionInfo"):
            for bad in (b"\xff", b"\x0a\xff\xff\xff\xff\x0f", b"\x0a\x05ab", b"\x08\x01"):
                self.code(Code.INVALID_ARGUMENT, self.raw, path + name, bad)
            for _ in range(200):
                try:
                    self.raw(path + name, r.randbytes(r.randrange(40)))
                except grpc.RpcError as e:
                    self.assertIn(e.code(), (Code.INVALID_ARGUMENT, Code.NOT_FOUND))
        self.code(Code.RESOURCE_EXHAUSTED, self.raw, path + "AppendTokens", bytes(4 * 2**20 + 1))
        self.code(Code.RESOURCE_EXHAUSTED, self.raw, path + "AppendTokens", b"\x10\x01" * 2**21)
        self.code(Code.UNIMPLEMENTED, self.raw, path + "Nothing", b"")
        self.code(Code.UNIMPLEMENTED, self.raw, "/other.Service/Call", b"")
        self.session([1])

    def test_labels(self):
        create = "/kakeya.v1.RuntimeService/CreateSession"
        self.code(Code.INVALID_ARGUMENT, self.raw, create, b"\x0a\x02\xff\xfe")
        self.code(Code.INVALID_ARGUMENT, self.stub.CreateSession,
                  pb.CreateSessionRequest(client_label="x" * 1000))

    def test_compressed(self):
        """A small message could become any amount of memory."""
        self.code(Code.UNIMPLEMENTED, self.stub.AppendTokens,
                  pb.AppendTokensRequest(session_id="x" * 10**6),
                  compression=grpc.Compression.Gzip)

    def test_bytes(self):
        r = random.Random(3)
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"",
                     r.randbytes(5000), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + r.randbytes(5000)):
            with socket.create_connection(("127.0.0.1", self.server.port)) as s:
                s.sendall(data)
        self.session([1])


class Doors(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = folder.name

    def path(self, name):
        return os.path.join(self.folder, name)

    def test_keys(self):
        first, second = "the-first-key-of-two", "the-second-key-of-two"
        with open(self.path("keys"), "w", encoding="utf-8") as f:
            f.write(f"{first}\n{second}\n")
        os.chmod(self.path("keys"), 0o600)
        server = Server("--api-key-file", self.path("keys"))
        create = lambda *metadata: server.stub.CreateSession(pb.CreateSessionRequest(),
                                                             metadata=metadata)
        for wrong in ((), (("authorization", "Bearer " + first[:-1]),),
                      (("authorization", first),), (("authorization", "Bearer "),),
                      (("x-api-key", first),)):
            with self.assertRaises(grpc.RpcError) as caught:
                create(*wrong)
            self.assertEqual(caught.exception.code(), Code.UNAUTHENTICATED)
        s = create(("authorization", "Bearer " + first)).session_id
        create(("authorization", "Bearer " + second))
        info = lambda key: server.stub.GetSessionInfo(
            pb.GetSessionInfoRequest(session_id=s), metadata=(("authorization", "Bearer " + key),))
        self.assertEqual(info(first).history_length, 0)
        with self.assertRaises(grpc.RpcError) as caught:
            info(second)  # whose it is not
        self.assertEqual(caught.exception.code(), Code.NOT_FOUND)
        self.assertEqual(server.stop(), 0)

    @unittest.skipUnless(shutil.which("openssl"), "openssl is not installed")
    def test_tls(self):
        cert, key = self.path("cert"), self.path("key")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key,
                        "-out", cert, "-days", "2", "-subj", "/CN=localhost", "-addext",
                        "subjectAltName=DNS:localhost"], check=True, capture_output=True)
        with open(cert, "rb") as f:
            credentials = grpc.ssl_channel_credentials(f.read())
        server = Server("--tls-cert", cert, "--tls-key", key, credentials=credentials)
        self.assertTrue(server.stub.CreateSession(pb.CreateSessionRequest()).session_id)
        with self.assertRaises(grpc.RpcError):
            client_pb2_grpc.RuntimeServiceStub(server.connect()).CreateSession(
                pb.CreateSessionRequest(), timeout=30)
        self.assertEqual(server.stop(), 0)


if __name__ == "__main__":
    try:
        unittest.main(argv=[sys.argv[0], *sys.argv[3:]], testRunner=TapRunner)
    finally:
        shutil.rmtree(MADE)
