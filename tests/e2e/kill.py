#!/usr/bin/python3
"""Kills `pal serve` with SIGKILL while sessions are written, again and again, and looks whether every
session goes on as if nothing had happened. Prints TAP.

kill.py PAL MODEL [--kills N] [--sessions N] [--seed N]

Each session runs a program of turns: append a text, generate. The programs run twice: on a server
that nothing disturbs, and on one that is killed at random instants and started again on the same
folder. After each start the client asks for its session: it must be there, and no shorter than what
was ever said to be committed, by a reply or by a look at it; then the client goes on from what is
there (an append that is not there is made again, a generation that was cut off is resumed). In the
end logs must be equal, and so must the log-probabilities of all tokens that arrived.
"""
import argparse
import http.client
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TEXT = open(os.path.join(HERE, "../../models/held.txt"), encoding="utf-8").read()
TURNS, MAX_TOKENS = 12, 90


class Gone(Exception):
    """The server is not there (any more)."""


class Server:
    """One on a folder, which may be killed and started again."""

    def __init__(self, pal, model, folder):
        self.args = [pal, "serve", model, "--port", "0", "--data-dir", folder, "--kv-budget", "256K",
                     "--kv-type", "int8", "--draft", "ngram"]
        self.process, self.port = None, 0

    def start(self):
        self.process = subprocess.Popen(self.args, stdout=subprocess.PIPE,
                                        stderr=subprocess.DEVNULL, text=True)
        line = self.process.stdout.readline()
        if "://" not in line:
            raise RuntimeError(f"pal serve said {line!r} and ended with {self.process.wait()}")
        self.port = int(line.split("://", 1)[1].split("/")[0].rsplit(":", 1)[1])

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        self.process.terminate()
        if self.process.wait(60):
            raise RuntimeError(f"pal serve ended with {self.process.returncode}")
        self.process.stdout.close()

    def ask(self, method, path, body=None):
        """The reply as JSON. Raises Gone, or AssertionError for a reply that is an error."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=120)
        try:
            connection.request(method, path, json.dumps(body) if body is not None else None,
                               {"Content-Type": "application/json"})
            reply = connection.getresponse()
            data = reply.read()
        except (OSError, http.client.HTTPException) as e:
            raise Gone from e
        finally:
            connection.close()
        assert reply.status == 200, f"{method} {path}: {reply.status} {data[:300]!r}"
        return json.loads(data)


class Program:
    """A session's turns; what has been acknowledged, and what came."""

    def __init__(self, seed):
        r = random.Random(seed)
        self.turns = []
        for _ in range(TURNS):
            at = r.randrange(len(TEXT) - 3000)
            self.turns.append({"text": TEXT[at:at + r.randrange(100, 3000)],
                               "seed": r.randrange(1 << 32),
                               "temperature": r.choice([0, 0.8]),
                               "max_tokens": r.randrange(1, MAX_TOKENS)})
        self.id, self.turn, self.appended, self.committed = None, 0, False, 0
        self.before = 0       # the log's length before the turn's append
        self.logprobs = {}    # position: what was told
        self.resumed = self.again = 0

    def done(self):
        return self.turn == TURNS

    def acknowledge(self, n):
        self.committed = max(self.committed, n)

    def look(self, server):
        """After a start: what is there, and where the program is by it."""
        info = server.ask("GET", f"/v1/sessions/{self.id}")
        assert info["length"] >= self.committed, \
            f"{self.id} has {info['length']} tokens of {self.committed} that were committed"
        turn = self.turns[self.turn] if not self.done() else None
        if turn is None:
            return
        if info["interrupted"]:
            self.resumed += 1
            self.generate(server, {"resume": True})
        elif self.appended is None:
            # The append was on its way.
            self.appended = info["length"] > self.before
            self.again += not self.appended
        elif self.appended and info["length"] > self.after:
            self.end_turn(info["length"])
        if self.appended and not self.done():
            self.after = self.before + self.size

    def generate(self, server, options):
        turn = self.turns[self.turn]
        body = {"ignore_eos": True, "logprobs": 0, "seed": turn["seed"],
                "temperature": turn["temperature"], "max_tokens": turn["max_tokens"], **options}
        reply = server.ask("POST", f"/v1/sessions/{self.id}/generate", body)
        usage = reply["usage"]["palimpsest"]
        first = usage["log_length"] - len(reply["ids"])
        for i, told in enumerate(reply["logprobs"]):
            self.logprobs[first + i] = (reply["ids"][i], told["logprob"])
        self.acknowledge(usage["committed"])
        self.end_turn(usage["log_length"])

    def end_turn(self, length):
        self.turn += 1
        self.appended, self.before = False, length

    def step(self, server):
        if not self.id:
            self.id = server.ask("POST", "/v1/sessions", {"label": "killed"})["id"]
            return
        turn = self.turns[self.turn]
        if not self.appended:
            self.size = len(server.ask("POST", "/v1/tokenize", {"text": turn["text"]})["tokens"])
            self.after = self.before + self.size
            self.appended = None
            reply = server.ask("POST", f"/v1/sessions/{self.id}/append", {"text": turn["text"]})
            assert reply["length"] == self.after, (reply["length"], self.after)
            self.appended = True
            self.acknowledge(reply["usage"]["palimpsest"]["committed"])
        self.generate(server, {})

    def run(self, server, errors):
        """Until the program ends, or the server is gone."""
        try:
            while not self.done():
                self.step(server)
        except Gone:
            pass
        except Exception as e:  # pylint: disable=broad-except
            errors.append(f"{type(e).__name__}: {e}")


def start_all(server, programs, errors):
    threads = [threading.Thread(target=p.run, args=(server, errors)) for p in programs]
    for t in threads:
        t.start()
    return threads


def watch(server, programs, until):
    """What others are told to be committed is."""
    while time.monotonic() < until:
        try:
            known = {s["id"]: s["committed"] for s in
                     server.ask("GET", "/v1/sessions?limit=100")["data"]}
        except Gone:
            return
        for p in programs:
            p.acknowledge(known.get(p.id, 0))
        time.sleep(0.002)


def logs(server, programs):
    return [server.ask("GET", f"/v1/sessions/{p.id}/log")["ids"] for p in programs]


def undisturbed(args, seeds):
    programs, errors = [Program(s) for s in seeds], []
    with tempfile.TemporaryDirectory() as folder:
        server = Server(args.pal, args.model, folder)
        server.start()
        start = time.monotonic()
        for t in start_all(server, programs, errors):
            t.join()
        seconds = time.monotonic() - start
        all_logs = logs(server, programs) if not errors else []
        server.stop()
    return programs, all_logs, errors, seconds


def disturbed(args, seeds, kills, seconds, r):
    """Kills at instants that are spread over what the programs take."""
    programs, errors = [Program(s) for s in seeds], []
    done = 0
    with tempfile.TemporaryDirectory() as folder:
        server = Server(args.pal, args.model, folder)
        while not errors:
            server.start()
            for p in programs:
                if p.id:
                    try:
                        p.look(server)
                    except AssertionError as e:
                        errors.append(str(e))
            threads = start_all(server, programs, errors)
            if done < kills and not all(p.done() for p in programs):
                watch(server, programs, time.monotonic() + r.random() * 2 * seconds / (kills + 1))
                server.kill()
                done += 1
            for t in threads:
                t.join()
            if all(p.done() for p in programs):
                break
        all_logs = []
        if not errors:
            if server.process.poll() is not None:
                server.start()
            all_logs = logs(server, programs)
        if server.process.poll() is None:
            server.stop()
    return programs, all_logs, errors, done


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("pal")
    parser.add_argument("model")
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--sessions", type=int, default=4)
    parser.add_argument("--each", type=int, default=6, help="kills of one set of programs")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    r = random.Random(args.seed)
    total = resumed = again = tokens = 0
    while total < args.kills:
        seeds = [r.randrange(1 << 32) for _ in range(args.sessions)]
        calm, right, errors, seconds = undisturbed(args, seeds)
        programs, found, more, kills = disturbed(args, seeds, min(args.each, args.kills - total),
                                                 seconds, r)
        errors += more
        for p, q, a, b in zip(calm, programs, right, found):
            if a != b:
                errors.append(f"{q.id}: another log than undisturbed")
            errors += [f"{q.id}: position {i}: {told} and not {p.logprobs[i]}"
                       for i, told in q.logprobs.items() if told != p.logprobs.get(i)][:1]
            resumed += q.resumed
            again += q.again
            tokens += len(b)
        if errors:
            break
        total += kills or 1
    print("1..1")
    print("not ok" if errors else "ok", "1 - killed and as undisturbed")
    for e in errors[:20]:
        print(f"# {e}")
    print(f"# {total} kills, {tokens} tokens, {resumed} generations resumed, {again} appends made again")
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
