#!/usr/bin/python3
"""Bad clients of pal serve: random requests made from its own OpenAPI document, clients that send
what is no request, that go away, or that want two things at once. Prints TAP.

badclients.py PAL MODEL [--requests N] [--seed N] [--threads N] [--sanitized]

Every request has a reply: one that its schema describes, or a typed error with a documented status;
nothing ends the server. Each path and method gives a good reply at least once: what is only refused
tests little. Memory and descriptors of the last quarter are compared with those of the second; a good
client's session, which is written and read all along, is unharmed.
"""
import argparse
import http.client
import json
import os
import random
import re
import socket
import string
import sys
import threading
import time

from openapi import Document
from serving import Server

NOBODY = "sess-" + "0" * 32
TEXTS = ["", "a", "The kernel", "\0", "\u2028\ud83d\ude00", "<|im_end|>", "../../etc/passwd", "%00",
         "x" * 5000, "null", NOBODY, "'; DROP TABLE sessions; --"]
NUMBERS = [0, -1, 1, 2, 3, 1 << 31, 1 << 53, -(1 << 63), 1 << 64, 0.5, -0.0, 1e308, 1e-300, 4095, 4096]
HEADERS = [("Content-Type", "text/plain"), ("Content-Type", ""), ("Content-Encoding", "gzip"),
           ("Authorization", "Bearer " + "k" * 99), ("Authorization", "Basic \xff"),
           ("Accept", "image/png"), ("Expect", "something"), ("Expect", "100-continue"),
           ("Range", "bytes=5-1"), ("Origin", "http://elsewhere.example"), ("Host", "elsewhere.example"),
           ("Cookie", "a=b; " * 200), ("X-Long", "y" * 9000), ("Connection", "upgrade"),
           ("X-Forwarded-For", "10.0.0.1"), ("X-Api-Key", "\t"), ("If-None-Match", "*")]
ENOUGH = 1500  # requests for each path and method to be good once
FEW = 8  # tokens, so that many requests fit
TOKENS = ("max_tokens", "max_completion_tokens", "max_output_tokens")
SMALL = (*TOKENS, "n", "best_of")
SCHEMAS = [{}, {"type": "object"}, {"type": "integer"}, {"enum": ["a", None, 5]}, {"type": "nothing"},
           {"type": "object", "properties": {"a": {"type": "string", "maxLength": 3}},
            "required": ["a"], "additionalProperties": False}, {"$ref": "#"}, {"$ref": "#/$defs/x"},
           {"anyOf": []}, {"type": "array", "items": {"type": "boolean"}, "maxItems": 2},
           {"type": "string", "pattern": "((("}, {"type": "array", "minItems": 1 << 40}]


class Maker:
    """Requests of an OpenAPI document: half of them as it says, the others with something wrong."""

    def __init__(self, spec, r):
        self.spec, self.r, self.wrong = spec, r, 0
        self.ids = {"sessions": [NOBODY], "responses": ["resp_1"], "models": ["palimpsest"]}
        self.file = b""  # of a session that was exported

    def anything(self, depth=0):
        r = self.r
        kind = r.randrange(8 if depth < 4 else 5)
        if kind == 0:
            return r.choice(NUMBERS)
        if kind in (1, 2):
            return r.choice(TEXTS)
        if kind == 3:
            return r.choice([None, True, False])
        if kind == 4:
            return "".join(r.choices(string.printable, k=r.randrange(30)))
        if kind == 5:
            return [self.anything(depth + 1) for _ in range(r.randrange(5))]
        return {r.choice(["type", "role", "content", "name", "id", "x"]): self.anything(depth + 1)
                for _ in range(r.randrange(4))}

    def value(self, schema, name="", depth=0):
        schema, r = self.spec.resolve(schema), self.r
        if r.random() < self.wrong or depth > 12:
            return self.anything(depth)
        if "oneOf" in schema:
            return self.value(r.choice(schema["oneOf"]), name, depth + 1)
        if "enum" in schema:
            return r.choice(schema["enum"])
        kind = schema.get("type")
        if kind == "object":
            if name in ("schema", "parameters", "input_schema"):
                return r.choice(SCHEMAS)
            known = schema.get("properties", {})
            return {k: self.value(s, k, depth + 1) for k, s in known.items()
                    if k in schema.get("required", []) or r.random() < 0.15}
        if kind == "array":
            least, most = schema.get("minItems", 0), schema.get("maxItems", 3)
            return [self.value(schema.get("items", {}), name, depth + 1)
                    for _ in range(r.randint(least, max(least, min(most, 3))))]
        if kind == "integer":
            least, most = schema.get("minimum", 0), schema.get("maximum", 20)
            return r.randint(least, min(most, least + (FEW if name in SMALL else 20)))
        if kind == "number":
            return r.uniform(schema.get("minimum", 0), schema.get("maximum", 2))
        if kind == "boolean":
            return r.random() < 0.5
        if kind == "string":
            return self.text(schema, name)
        return self.anything(depth)

    def text(self, schema, name):
        if name == "model":
            return "palimpsest"
        if name == "previous_response_id":
            return self.r.choice(self.ids["responses"])
        if schema.get("maxLength") == 0:
            return ""
        return self.r.choice(["a", "b_1"] if "pattern" in schema else ["a", "The kernel", "It is."])

    def body(self, schema):
        """Bytes that are the JSON of the schema, or nearly so."""
        r = self.r
        value = self.value(schema)
        if isinstance(value, dict):
            for name in set(SMALL) & set(self.spec.resolve(schema).get("properties", {})):
                if name.startswith("max") and not (
                        isinstance(value.get(name), int) and value[name] > FEW):
                    value.setdefault(name, FEW)
            for name in SMALL:
                if isinstance(value.get(name), int) and FEW < value[name] < 1 << 31:
                    value[name] = FEW
            if self.wrong and r.random() < 0.4:
                value[r.choice(list(value) or ["x"])] = self.anything()
            if self.wrong and value and r.random() < 0.1:
                del value[r.choice(list(value))]
        data = json.dumps(value).encode()
        kind = r.randrange(20) if self.wrong else -1
        if kind == 0:
            return data[:r.randrange(len(data) + 1)]
        if kind == 1:
            return data.replace(b"a", bytes([r.randrange(128, 256)]), 3)
        if kind == 2:
            return r.choice([b"[", b'{"a":', b'{"messages":[']) * 5000
        if kind == 3:
            return r.randbytes(r.randrange(200))
        if kind == 4:
            return data[:-1] + b',"x":"' + b"y" * (1 << 20) + b'"}'
        return data

    def request(self):
        """(route, method, URL, headers, body)"""
        r = self.r
        self.wrong = r.choice([0, 0.04])
        every = [(route, m) for route, of in self.spec.paths.items() for m in of]
        route, method = r.choices(every, [5 if m == "post" else 2 for _, m in every])[0]
        content = self.spec.paths[route][method].get("requestBody", {}).get("content", {})
        body, headers = None, {}
        if "application/json" in content:
            body = self.body(content["application/json"]["schema"])
            headers["Content-Type"] = "application/json"
        elif content:
            body = bytearray(self.file or r.randbytes(400))
            for _ in range(r.randrange(4) if self.wrong else 0):
                body[r.randrange(len(body))] ^= 1 << r.randrange(8)
        ids = self.ids.get(route.split("/")[2] if route.count("/") > 2 else "", ["x"])
        if self.wrong and r.random() < 0.3:
            ids = ["x", "%2e%2e", "a" * 300, "resp_1", NOBODY, "%00", "%ff"]
        url = route.replace("{id}", r.choice(ids))
        if self.wrong and r.random() < 0.1:
            method = r.choice(["PUT", "PATCH", "OPTIONS", "HEAD", "GET", "POST", "DELETE", "TRACE"])
        if self.wrong and r.random() < 0.1:
            url += r.choice(["?limit=-1", "?from=99999999999999999999", "?%ff=%fe", "/", "//", "%00"])
        if self.wrong and r.random() < 0.2:
            headers.update(r.sample(HEADERS, r.randint(1, 3)))
        return route, method.upper(), url, headers, body

    def learn(self, route, method, kind, data):
        """Names and bytes for later requests."""
        if "octet-stream" in kind:
            self.file = data
        elif method == "POST" and kind.startswith("application/json"):
            name = json.loads(data).get("id", "")
            for kind, start in (("sessions", "sess"), ("responses", "resp")):
                if name.startswith(start) and name not in self.ids[kind]:
                    self.ids[kind] = [*self.ids[kind][-4:], name]


def failed(event):
    """Whether it is a typed error that is not the server's own fault."""
    error = event.get("error") if isinstance(event, dict) else None
    return isinstance(error, dict) and isinstance(error.get("message"), str) and \
        error.get("type") in ("rate_limit_error", "overloaded_error", "rate_limit_exceeded")


def typed(spec, route, url, method, status, kind, data):
    """What is wrong with a reply, or None."""
    if method == "HEAD" or status == 204:
        return f"a body: {data[:200]!r}" if data else None
    if status >= 400:
        says = spec.paths[route].get(method.lower(), {}).get("responses", {}).get("default", {})
        known = re.findall(r"\b[45]\d\d\b", says.get("description", "")) or ["400", "403", "405", "431"]
        known += ["404"]  # that of another path, or of no path at all
        wrong = spec.problem(json.loads(data), {"$ref": "#/components/schemas/" + (
            "AnthropicError" if re.match(r"/v1/messages(/|\?|$)", url) else "Error")})
        if wrong or str(status) not in known or status == 500:
            return f"{status} {data[:300]!r}: {wrong}"
        return None
    if status != 200:
        return f"status {status}"
    schemas = spec.reply(route, method)
    schema = schemas.get(kind.split(";")[0])
    if schema is None:
        return f"{kind!r} is none of {list(schemas)}"
    if kind.startswith("application/json"):
        return spec.problem(json.loads(data), schema)
    if kind.startswith("text/event-stream"):
        # No room for the second of several answers, say: an error in mid-stream is an event.
        found = [None if failed(json.loads(line[6:])) else
                 spec.problem(json.loads(line[6:]), schema) for line in data.decode().split("\n")
                 if line.startswith("data: ") and line != "data: [DONE]"]
        return next((f for f in found if f), None) if found else "a stream without events"
    return None


def endless(body):
    """Whether it may ask for more tokens than a client waits for; who does not wait is gone."""
    return re.search(rb'"(%s)": *\d{5}' % "|".join(TOKENS).encode(), bytes(body or b""))


class Fuzz:
    """Threads that send requests; what they found."""

    def __init__(self, server, args):
        self.server, self.args = server, args
        self.spec = Document(server.ask("GET", "/openapi.json")[1])
        self.lock, self.stop = threading.Lock(), threading.Event()
        self.sent, self.good, self.marks, self.problems = 0, set(), [], []

    def one(self, maker):
        route, method, url, headers, body = maker.request()
        leaves = endless(body)
        # Where a request names no limit, 8192 tokens come, and slowly under a sanitizer.
        patience = 5 if leaves else 240 if self.args.sanitized else 120
        c = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=patience)
        try:
            c.request(method, url, body, headers)
            if maker.r.random() < 0.05:
                return  # gone before the reply
            reply = c.getresponse()
            if maker.r.random() < 0.05:
                reply.read(10)
                return  # gone in its middle
            kind, data = reply.getheader("Content-Type") or "", reply.read()
            wrong = typed(self.spec, route, url, method, reply.status, kind, data)
            if wrong:
                self.problems.append(f"{method} {url} {headers} {bytes(body or b'')[:600]!r}: {wrong}")
            elif reply.status == 429:
                self.make_place(maker)
            elif reply.status == 200:
                self.good.add((route, method))
                maker.learn(route, method, kind, data)
                if (route, method) == ("/v1/sessions", "POST"):  # something to go on from
                    path = f"/v1/sessions/{maker.ids['sessions'][-1]}/append"
                    self.server.ask("POST", path, {"text": "The kernel"})
        except (OSError, http.client.HTTPException, ValueError) as e:
            if leaves and isinstance(e, TimeoutError):
                return
            self.problems.append(f"no reply to {method} {url} {headers} "
                                 f"{bytes(body or b'')[:600]!r}: {e!r}; the server's end: "
                                 f"{self.server.process.poll()}")
        finally:
            c.close()

    def make_place(self, maker):
        """Deletes sessions, unless they are in use, or went already; those of the good client stay."""
        sessions = self.server.ask("GET", "/v1/sessions")[1]["data"]
        for session in maker.r.sample(sessions, len(sessions) // 2):
            if session["label"] != "good":
                self.server.ask("DELETE", "/v1/sessions/" + session["id"])

    def work(self, seed):
        maker = Maker(self.spec, random.Random(seed))
        while not self.problems:
            with self.lock:
                if self.sent >= self.args.requests:
                    return
                self.sent += 1
                if self.sent % max(1, self.args.requests // 40) == 0:
                    self.marks.append(used(self.server))
            self.one(maker)

    def run(self):
        good = threading.Thread(target=good_client, args=(self.server, self.stop, self.problems))
        threads = [threading.Thread(target=self.work, args=(self.args.seed * 1000 + i,))
                   for i in range(self.args.threads)]
        for t in [good, *threads]:
            t.start()
        for t in threads:
            t.join()
        self.stop.set()
        good.join()
        return self.problems

    def never_good(self):
        return [f"{method.upper()} {route} was never good" for route, of in self.spec.paths.items()
                for method in of if (route, method.upper()) not in self.good]


def used(server):
    """Resident bytes and descriptors of the server."""
    status = open(f"/proc/{server.process.pid}/status", encoding="ascii").read()
    return (int(status.split("VmRSS:")[1].split()[0]) * 1024,
            len(os.listdir(f"/proc/{server.process.pid}/fd")))


def good_client(server, stop, problems):
    """Its session grows as it should, whatever others do."""
    status, session = server.ask("POST", "/v1/sessions", {"label": "good"})
    length = 0
    while not stop.is_set() and status == 200:
        status, r = server.ask("POST", f"/v1/sessions/{session['id']}/append", {"ids": [5, 6, 7]})
        length += 3
        if status != 200 or r["length"] != length:
            problems.append(f"the good client's session: {status} {r}")
            return
        time.sleep(0.05)
    if server.ask("GET", f"/v1/sessions/{session['id']}/log")[1]["ids"] != [5, 6, 7] * (length // 3):
        problems.append("the good client's log is another one")


def flat(marks, sanitized):
    """Memory and descriptors do not grow; but sanitizers keep freed memory for a while."""
    n = len(marks) // 4
    before, after = marks[n:2 * n], marks[-n:]
    return [f"{what}: {max(b[i] for b in before)}, and {max(a[i] for a in after)} in the end"
            for i, what, room in ((0, "bytes", 64 << 20), (1, "descriptors", 64))[sanitized:]
            if max(a[i] for a in after) > max(b[i] for b in before) * 1.1 + room]


def two_at_once(server):
    """The second is refused, and the first is not harmed."""
    session = server.ask("POST", "/v1/sessions", {})[1]["id"]
    server.ask("POST", f"/v1/sessions/{session}/append", {"text": "The kernel"})
    path, body = f"/v1/sessions/{session}/generate", {"max_tokens": 600, "ignore_eos": True}
    for _ in range(20):
        replies = []
        first = threading.Thread(target=lambda: replies.append(server.ask("POST", path, body)))
        first.start()
        while not server.ask("GET", f"/v1/sessions/{session}")[1]["busy"] and first.is_alive():
            pass
        status, reply = server.ask("POST", path, {**body, "max_tokens": 1})
        first.join()
        if status != 200:
            good = status == 409 and reply["error"]["type"] and replies[0][0] == 200
            return [] if good else [f"two at once: {status} {reply}, {replies[0][0]}"]
    return ["the second never met the first"]


def clear(server):
    status, sessions = server.ask("GET", "/v1/sessions")
    found = [server.ask("DELETE", "/v1/sessions/" + s["id"]) for s in sessions["data"]]
    left = server.ask("GET", "/v1/sessions")[1]["total"]
    return [str(f) for f in found if f[0] != 200] + ([f"{left} are left"] if left else [])


def goes_away(server):
    """In the middle of a prompt or a stream: the session is free soon."""
    problems = []
    for body in ({"messages": [{"role": "user", "content": "The kernel is the. " * 4000}],
                  "max_tokens": 4},
                 {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4000,
                  "stream": True}):
        data = json.dumps(body).encode()
        s = socket.create_connection(("127.0.0.1", server.port))
        s.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: " +
                  str(len(data)).encode() + b"\r\n\r\n" + data)
        time.sleep(0.2)
        s.close()
        end = time.monotonic() + 60
        while server.ask("GET", "/v1/status")[1]["running"] and time.monotonic() < end:
            time.sleep(0.05)
        if time.monotonic() >= end:
            problems.append("a client that has gone keeps its session busy")
    return problems


def no_requests(server):
    """Bytes that are no request, or not all of one, or too much: others are answered meanwhile."""
    start = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
    slow = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(60)]
    wholes = (b"", b"GET", start, start + b"Content-Length: 500\r\n\r\n{",
              start + b"Transfer-Encoding: chunked\r\n\r\nfffffff\r\n{",
              start + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", b"\x16\x03\x01\x02\x00\x01" * 9,
              b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\0" * 4000,
              start + b"Content-Length: -1\r\n\r\n", start + b"Content-Length: 9" + b"9" * 30 + b"\r\n\r\n")
    problems = []
    for i, s in enumerate(slow):
        try:
            for byte in wholes[i % len(wholes)]:
                s.sendall(bytes([byte]))
            if i % 2:
                s.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it was told already
    status, reply = server.ask("POST", "/v1/completions", {"prompt": "The", "max_tokens": 2})
    if status != 200:
        problems.append(f"a good client meanwhile: {status} {reply}")
    for s in slow:
        s.close()
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    try:
        c.request("POST", "/v1/completions", b" " * (100 << 20))
        status = c.getresponse().status
    except (BrokenPipeError, ConnectionResetError):
        status = c.getresponse().status  # the reply came before the end of the body
    finally:
        c.close()
    return problems + ([f"100 MB: {status}"] if status != 413 else [])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pal")
    parser.add_argument("model")
    parser.add_argument("--requests", type=int, default=ENOUGH)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--sanitized", action="store_true")
    args = parser.parse_args()
    # Few sessions, so that there are as many as may be long before memory is looked at.
    server = Server(args.pal, args.model, "--draft", "auto", "--kv-budget", "512K", "--quiet",
                    "--max-sessions", "24", "--memory-limit", "2G")
    fuzz, failed = Fuzz(server, args), 0
    rounds = [("random requests", fuzz.run())]
    if not fuzz.problems:
        rounds += [("memory and descriptors stay", flat(fuzz.marks, args.sanitized)),
                   ("each path and method was good once",
                    fuzz.never_good() if args.requests >= ENOUGH else []),
                   ("all sessions can be deleted", clear(server)),
                   ("two generations on one session", two_at_once(server)),
                   ("what is no request", no_requests(server)),
                   ("clients that go away", goes_away(server))]
    code, said = server.close() if server.process.poll() is None else (server.process.returncode,
                                                                       "")
    rounds.append(("it ends as it should", [f"{code}: {said[-2000:]}"] if code else []))
    print(f"1..{len(rounds)}")
    for i, (name, wrong) in enumerate(rounds):
        print("not ok" if wrong else "ok", i + 1, "-", name)
        for line in wrong[:10]:
            print("# " + line.replace("\n", "\n# ")[:1500])
        failed += bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
