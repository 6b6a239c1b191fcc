#!/usr/bin/python3
"""Bad clients of pal serve: random requests made from its own OpenAPI document, and clients that go
away or want two things at once. Prints TAP.

badclients.py PAL MODEL [--requests N] [--seed N] [--threads N]

Every reply is 200 of a known kind, or a typed error; nothing ends the server. Memory and descriptors
of the last quarter are compared with those of the second; a good client's session, which is written
and read all along, is unharmed.
"""
import argparse
import http.client
import json
import os
import random
import socket
import string
import sys
import threading
import time

from serving import Server

TEXTS = ["", "a", "The kernel", "\0", "\u2028\ud83d\ude00", "<|im_end|>", "../../etc/passwd", "%00",
         "x" * 5000, "null", "sess-" + "0" * 32, "'; DROP TABLE sessions; --"]
NUMBERS = [0, -1, 1, 2, 3, 1 << 31, 1 << 53, -(1 << 63), 1 << 64, 0.5, -0.0, 1e308, 1e-300, 4095, 4096]
STATUSES = {200, 204, 400, 401, 404, 405, 408, 409, 411, 413, 415, 422, 429, 431, 500, 501, 503, 505}


class Maker:
    """Requests of an OpenAPI document, mostly as it says, with something wrong in most of them."""

    def __init__(self, spec, r):
        self.spec, self.r, self.ids = spec, r, ["sess-" + "0" * 32]

    def resolve(self, schema):
        while "$ref" in schema:
            schema = self.spec["components"]["schemas"][schema["$ref"].rsplit("/", 1)[1]]
        return schema

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

    def value(self, schema, depth=0):
        schema, r = self.resolve(schema), self.r
        if r.random() < 0.04 or depth > 6:
            return self.anything(depth)
        for choice in ("oneOf", "anyOf"):
            if choice in schema:
                return self.value(r.choice(schema[choice]), depth + 1)
        if "enum" in schema:
            return r.choice(schema["enum"])
        if "const" in schema:
            return schema["const"]
        kind = schema.get("type", "object" if "properties" in schema else None)
        kind = r.choice(kind) if isinstance(kind, list) else kind
        if kind == "object":
            known = schema.get("properties", {})
            return {k: self.value(s, depth + 1) for k, s in known.items()
                    if k in schema.get("required", []) or r.random() < 0.3}
        if kind == "array":
            return [self.value(schema.get("items", {}), depth + 1) for _ in range(r.randrange(4))]
        if kind == "integer":
            least = schema.get("minimum", 0)
            return r.randrange(int(least), int(min(schema.get("maximum", 20), least + 20)) + 1)
        if kind == "number":
            return r.uniform(schema.get("minimum", 0), schema.get("maximum", 2))
        if kind == "boolean":
            return r.random() < 0.5
        return r.choice(TEXTS[1:3]) if kind == "string" else self.anything(depth)

    def body(self, schema):
        r = self.r
        value = self.value(schema)
        if isinstance(value, dict):
            # Few tokens, so that many requests fit.
            for name in ("max_tokens", "max_completion_tokens", "max_output_tokens", "n"):
                if isinstance(value.get(name), int) and value[name] > 8:
                    value[name] = 8
            if "max_tokens" in self.resolve(schema).get("properties", {}):
                value.setdefault("max_tokens", 4)
            if r.random() < 0.2:
                value[r.choice(list(value) or ["x"])] = self.anything()
        data = json.dumps(value, allow_nan=r.random() < 0.5).encode("utf-8", "surrogatepass")
        kind = r.randrange(20)
        if kind == 0:
            at = r.randrange(len(data) + 1)
            return data[:at]
        if kind == 1:
            return data.replace(b"a", bytes([r.randrange(128, 256)]), 3)
        if kind == 2:
            return b"[" * 5000
        if kind == 3:
            return bytes(r.randrange(256) for _ in range(r.randrange(200)))
        return data

    def request(self):
        r = self.r
        path = r.choice(list(self.spec["paths"]))
        method = r.choice([m for m in self.spec["paths"][path] if m in ("get", "post", "delete")])
        content = self.spec["paths"][path][method].get("requestBody", {}).get("content", {})
        body = None
        if "application/json" in content:
            body = self.body(content["application/json"]["schema"])
        elif content:
            body = bytes(r.randrange(256) for _ in range(r.randrange(400)))
        url = path.replace("{id}", r.choice(self.ids + ["x", "%2e%2e", "a" * 300, "resp_1"]))
        if r.random() < 0.1:
            method = r.choice(["PUT", "PATCH", "OPTIONS", "HEAD", "GET", "POST", "DELETE"])
        if r.random() < 0.05:
            url += r.choice(["?limit=-1", "?from=99999999999999999999", "?%ff=%fe", "/", "//", "%00"])
        return method.upper(), url, body


def typed(status, kind, data):
    """What is wrong with a reply, or None."""
    if status not in STATUSES:
        return f"status {status}"
    if status >= 400 and data:
        error = json.loads(data).get("error", {})
        if not isinstance(error.get("message"), str) or not isinstance(error.get("type"), str):
            return f"an error without a type: {data[:200]!r}"
        return f"an error of the server: {error['message']}" if status == 500 else None
    if kind.startswith("application/json") and data:
        json.loads(data)
    elif kind.startswith("text/event-stream"):
        for line in data.decode().split("\n"):
            if line.startswith("data: ") and line != "data: [DONE]":
                json.loads(line[6:])
    return None


def one(server, maker, problems):
    method, url, body = maker.request()
    c = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    try:
        c.request(method, url, body, {"Content-Type": "application/json"} if body else {})
        if maker.r.random() < 0.05:
            return  # gone before the reply
        reply = c.getresponse()
        kind = reply.getheader("Content-Type") or ""
        if maker.r.random() < 0.05:
            reply.read(10)
            return  # gone in its middle
        data = reply.read()
        wrong = typed(reply.status, kind, data)
        if wrong:
            problems.append(f"{method} {url} {(body or b'')[:300]!r}: {wrong}")
        if url == "/v1/sessions" and method == "POST" and reply.status == 200:
            maker.ids.append(json.loads(data)["id"])
            if len(maker.ids) > 5:
                server.ask("DELETE", "/v1/sessions/" + maker.ids.pop(0))
    except (OSError, http.client.HTTPException) as e:
        if server.process.poll() is not None:
            problems.append(f"the server ended after {method} {url} {(body or b'')[:300]!r}: {e}")
    except ValueError as e:
        problems.append(f"{method} {url}: {e}")
    finally:
        c.close()


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


def fuzz(server, args, problems):
    status, spec = server.ask("GET", "/openapi.json")
    assert status == 200
    done, marks, lock, stop = [0], [], threading.Lock(), threading.Event()
    good = threading.Thread(target=good_client, args=(server, stop, problems))
    good.start()

    def work(seed):
        maker = Maker(spec, random.Random(seed))
        while not problems:
            with lock:
                if done[0] >= args.requests:
                    return
                done[0] += 1
                if done[0] % max(1, args.requests // 40) == 0:
                    marks.append(used(server))
            one(server, maker, problems)

    threads = [threading.Thread(target=work, args=(args.seed * 1000 + i,))
               for i in range(args.threads)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    stop.set()
    good.join()
    return marks


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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pal")
    parser.add_argument("model")
    parser.add_argument("--requests", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=6)
    parser.add_argument("--sanitized", action="store_true")
    args = parser.parse_args()
    server = Server(args.pal, args.model, "--draft", "auto", "--kv-budget", "512K", "--quiet",
                    "--max-sessions", "80", "--memory-limit", "2G")
    problems, failed = [], 0
    marks = fuzz(server, args, problems)
    rounds = [("random requests", problems)]
    if not problems:
        rounds += [("memory and descriptors stay", flat(marks, args.sanitized)),
                   ("two generations on one session", two_at_once(server)),
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
