#!/usr/bin/env python3
"""What a running `pal serve` does for many sessions, long ones, resent ones and tool calls.

Each part starts a server of its own on a random port of the loopback, with its sessions in a
temporary folder, asks it over HTTP, and writes an evidence file with every sample and the verdicts
of issue 6's bars. A server's options beyond those of the part are given by --serve.

--model: a GGUF file, or a shape and type as of compare.py (0.6b-q4_k_m), made once.
"""
import argparse
from datetime import datetime, timezone
import http.client
import json
import os
from pathlib import Path
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "bench"))

import compare  # noqa: E402
import machine  # noqa: E402
from machine import Failed, spread  # noqa: E402

FORMAT = "palimpsest-serving-1"
SHIPPED = str(ROOT / "models" / "palimpsest-5m.gguf")
TASKS = ROOT / "training" / "tasks.json"
FILLER = ROOT / "models" / "held.txt"
PATIENCE = 600  # seconds for one reply
START = 300     # seconds until a server listens


# --- the server ---


class Refused(Exception):
    """A reply that is an error."""


class Client:
    """One connection, kept open. For one thread."""

    def __init__(self, port):
        self.http = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)

    def ask(self, method, path, body=None):
        """The reply's JSON. Errors: Refused, also where there is no reply."""
        try:
            self.http.request(method, path, json.dumps(body) if body is not None else None,
                              {"Content-Type": "application/json"})
            reply = self.http.getresponse()
            data = reply.read()
        except (OSError, http.client.HTTPException) as e:
            self.http.close()
            raise Refused(f"{method} {path}: {type(e).__name__}: {e}") from e
        if reply.status != 200:
            raise Refused(f"{method} {path}: {reply.status} "
                          + data[:300].decode(errors="replace"))
        return json.loads(data)

    def post(self, path, **body):
        return self.ask("POST", path, body)

    def tokens(self, text, special=False):
        return self.post("/v1/tokenize", content=text, parse_special=special)["tokens"]

    def generate(self, session, n, **more):
        return self.post(f"/v1/sessions/{session}/generate",
                         **{"max_tokens": n, "ignore_eos": True, "temperature": 0, **more})


class Server:
    """A `pal serve`, while the block runs."""

    def __init__(self, args, *options):
        self.model = compare.wanted_models(args.model)[0]
        path = self.model[1] or compare.make_model(self.model[0])
        self.file_bytes = os.path.getsize(path)
        self.command = [args.pal, "serve", path, "-q", "-t", str(args.threads), *options,
                        *shlex.split(args.serve)]

    def __enter__(self):
        self.folder, self.log = tempfile.TemporaryDirectory(), tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [*self.command, "--port", "0", "--data-dir", self.folder.name],
            stdout=subprocess.PIPE, stderr=self.log, text=True)
        clock = threading.Timer(START, self.process.kill)
        clock.start()
        line = self.process.stdout.readline()
        clock.cancel()
        if "://" not in line:
            self.log.seek(0)
            text = self.log.read().decode(errors="replace").strip()[-600:]
            self.__exit__()
            raise Failed(f"{machine.public(self.command)}: {text or 'ended'}")
        self.port = int(line.rsplit(":", 1)[1])
        return self

    def __exit__(self, *_):
        self.process.terminate()
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()
        self.folder.cleanup()

    def client(self):
        return Client(self.port)

    def memory(self, name):
        """VmRSS or VmHWM, bytes; 0: the server is gone."""
        for line in machine.read(f"/proc/{self.process.pid}/status").splitlines():
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
        return 0

    def around(self):
        return machine.Around((self.process.pid, os.getpid()))

    def end(self, around):
        return around.end(SimpleNamespace(ru_utime=0.0, ru_stime=0.0,
                                          ru_maxrss=self.memory("VmHWM") // 1024))

    def about(self):
        return {"model": {"label": self.model[0], "file_bytes": self.file_bytes},
                "command": machine.public(self.command)}


def together(n, work):
    """work(i) in n threads; the first failure of any is raised."""
    failed = []

    def guarded(i):
        try:
            work(i)
        except Exception as e:  # whatever it is, the caller gets it
            failed.append(e)

    threads = [threading.Thread(target=guarded, args=(i,), daemon=True) for i in range(n)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failed:
        raise failed[0]


def least(what, bar, value):
    return {"what": what, "least": bar, "value": value, "met": value >= bar}


def most(what, bar, value):
    return {"what": what, "most": bar, "value": value, "met": value <= bar}


def told(reply):
    return reply["usage"]["palimpsest"]


# --- throughput: many sessions that generate at once, over one alone ---


def burst(server, args, n, seed):
    """Tokens a second of n sessions that generate at once."""
    ready, spans, tokens = threading.Barrier(n), [None] * n, [0] * n

    def work(i):
        client, r = server.client(), random.Random(seed * 1000 + i)
        session = client.post("/v1/sessions")["id"]
        try:
            client.post(f"/v1/sessions/{session}/append",
                        ids=[r.randrange(1, 1000) for _ in range(args.prompt)])
            ready.wait(PATIENCE)
            start = time.monotonic()
            reply = client.generate(session, args.tokens)
            spans[i] = (start, time.monotonic())
            tokens[i] = reply["usage"]["completion_tokens"]
        except BaseException:
            ready.abort()  # or the others wait for this one
            raise
        client.ask("DELETE", f"/v1/sessions/{session}")

    around = server.around()
    together(n, work)
    if set(tokens) != {args.tokens}:
        raise Failed(f"{args.tokens} tokens were asked for, and {sorted(set(tokens))} came")
    wall = max(end for _, end in spans) - min(start for start, _ in spans)
    return {"sessions": n, "tokens": sum(tokens), "wall_s": wall, "tok_s": sum(tokens) / wall,
            "around": server.end(around)}


def throughput(args):
    with Server(args, "--draft", args.draft or "none") as server:
        burst(server, args, args.sessions, 0)  # arenas and weights are touched
        rounds = []
        for i in range(1, args.rounds + 1):
            counts = (1, args.sessions) if i % 2 else (args.sessions, 1)
            found = {n: burst(server, args, n, i) for n in counts}
            rounds.append({"alone": found[1], "together": found[args.sessions],
                           "order": ["alone" if n == 1 else "together" for n in counts]})
            print(f"  round {i}  alone {found[1]['tok_s']:.4g} tok/s, {args.sessions} sessions "
                  f"{found[args.sessions]['tok_s']:.4g}", flush=True)
    ratio = spread([r["together"]["tok_s"] / r["alone"]["tok_s"] for r in rounds])
    return {**server.about(), "rounds": rounds,
            "summary": {"alone": spread([r["alone"]["tok_s"] for r in rounds]),
                        "together": spread([r["together"]["tok_s"] for r in rounds]),
                        "ratio": ratio,
                        "bars": [least(f"{args.sessions} sessions over one", 3.0,
                                       ratio["median"])]},
            "arounds": [r[w]["around"] for r in rounds for w in r["order"]]}


# --- soak: very many sessions under a ceiling of memory ---


def jain(values):
    squares = sum(v * v for v in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 0.0


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def soak_session(server, args, i, ids, out, clock):
    """Turns of one session until the end; an error ends none of the others."""
    client, r, session = server.client(), random.Random(i), None
    while time.monotonic() < clock.end:
        try:
            session = session or client.post("/v1/sessions")["id"]
            at = r.randrange(len(ids) - args.prompt)
            start = time.monotonic()
            client.post(f"/v1/sessions/{session}/append", ids=ids[at:at + args.prompt])
            reply = client.generate(session, args.tokens)
        except Refused as e:
            out["errors"].append(str(e))
            time.sleep(0.1)
            continue
        end = time.monotonic()
        if end <= clock.end:  # a turn counts where it ends, for every session alike
            out["latencies_s"].append(round(end - start, 4))
            out["tokens"] += args.prompt + reply["usage"]["completion_tokens"]
            out["generated"] += reply["usage"]["completion_tokens"]


def sample_memory(server, samples, done):
    start = time.monotonic()
    while True:
        samples.append({"s": round(time.monotonic() - start, 1),
                        "rss_bytes": server.memory("VmRSS")})
        if done.wait(1):
            return


def bytes_of(text):
    units = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
    number, unit = (text[:-1], units[text[-1]]) if text[-1:] in units else (text, 1)
    if not number.isdecimal() or not int(number):
        raise Failed(f"'{text}' is not a number of bytes (K, M and G are known)")
    return int(number) * unit


def soak(args):
    limit = bytes_of(args.memory_limit)
    sessions = [{"tokens": 0, "generated": 0, "latencies_s": [], "errors": []}
                for _ in range(args.sessions)]
    memory, done = [], threading.Event()
    with Server(args, "--memory-limit", args.memory_limit, "--draft",
                args.draft or "auto") as server:
        ids = server.client().tokens(FILLER.read_text(encoding="utf-8")[:200000])
        around = server.around()
        watch = threading.Thread(target=sample_memory, args=(server, memory, done))
        watch.start()
        clock = SimpleNamespace(end=time.monotonic() + 60 * args.minutes)
        try:
            together(args.sessions, lambda i: soak_session(server, args, i, ids, sessions[i],
                                                           clock))
        finally:
            done.set()
            watch.join()
        status = server.client().ask("GET", "/v1/status")
        around = server.end(around)
    latencies = [s for one in sessions for s in one["latencies_s"]]
    if not latencies:
        raise Failed(f"no turn ended: {next((e for s in sessions for e in s['errors']), '')}")
    errors = sum(len(s["errors"]) for s in sessions)
    peak = max(around["max_rss_bytes"], *(m["rss_bytes"] for m in memory))
    fair = jain([s["tokens"] for s in sessions])
    summary = {"turns": len(latencies), "tokens": sum(s["tokens"] for s in sessions),
               "generated_tok_s": sum(s["generated"] for s in sessions) / (60 * args.minutes),
               "latency_s": {"p50": percentile(latencies, 0.5),
                             "p99": percentile(latencies, 0.99), "max": max(latencies)},
               "jain": fair, "errors": errors, "peak_rss_bytes": peak, "memory_limit": limit,
               "bars": [most("errors", 0, errors),
                        most("peak memory, of the limit", 1.0, peak / limit),
                        least("Jain's index of tokens", 0.98, fair)]}
    print(f"  {summary['turns']} turns, {summary['generated_tok_s']:.4g} tok/s generated, "
          f"turn p50 {summary['latency_s']['p50']:.3g} s, p99 {summary['latency_s']['p99']:.3g} s, "
          f"peak memory {peak / 1e6:.0f} MB, {errors} errors", flush=True)
    return {**server.about(), "sessions": sessions, "memory": memory, "status": status,
            "summary": summary, "arounds": [around]}


# --- turns: one long session, and what it remembers of its beginning ---


class Facts:
    """Facts and questions in the words that the shipped model was trained with."""

    def __init__(self, seed):
        tasks = json.loads(TASKS.read_text(encoding="utf-8"))
        self.grammar, self.form = tasks["grammar"], tasks["plain"]
        self.kind, self.random = tasks["kinds"]["key"], random.Random(seed)
        self.names = set()

    def expand(self, text, known):
        while "{" in text:
            before, _, rest = text.partition("{")
            name, _, behind = rest.partition("}")
            word = known.get(name) or self.random.choice(self.grammar[name])
            text = before + word + behind
        return text

    def draw(self):
        """(the fact's line, the question's text, the answer's)"""
        while True:
            known = {v: self.expand("{" + g + "}", {}) for v, g in self.kind["vars"].items()}
            if known["name"] not in self.names:
                break
        self.names.add(known["name"])
        fact = self.random.choice(self.kind["facts"][0])
        question = self.random.choice(self.kind["questions"])
        asked = self.form["before"] + question + self.form["between"] + self.kind["lead"]
        return (self.expand(fact, known), self.expand(asked, known),
                self.expand(self.kind["answer"], known))


def turn_ids(client, args, facts):
    """(token ids of every turn's text, all of one length; [(question, answer)] as ids): the
    first turns have a fact each, or two."""
    filler = client.tokens(FILLER.read_text(encoding="utf-8")[:1 << 20])
    newline, at, questions, turns = client.tokens("\n"), 0, [], []
    for _ in range(args.turns):
        ids = []
        while len(questions) < args.questions:
            line, asked, answer = facts.draw()
            line = newline + client.tokens(line + "\n")
            if len(ids) + len(line) > args.prompt:
                if not ids:
                    raise Failed(f"a turn of {args.prompt} tokens has no room for a fact")
                break  # the drawn one is dropped: its name stays unused
            ids += line
            questions.append((newline + client.tokens(asked), client.tokens(answer)))
        n = args.prompt - len(ids)
        ids += filler[at:at + n]
        at += n
        turns.append(ids)
    if at > len(filler) or len(questions) < args.questions:
        raise Failed(f"{args.turns} turns of {args.prompt} tokens have no room for "
                     f"{args.questions} facts, or there is no text for so many")
    return turns, questions


def one_turn(client, args, session, ids):
    start = time.monotonic()
    appended = client.post(f"/v1/sessions/{session}/append", ids=ids)
    made = client.generate(session, args.tokens)
    wall = time.monotonic() - start
    return {"s": wall, "in": len(ids), "out": made["usage"]["completion_tokens"],
            "kv_bytes": [told(appended)["kv_bytes"], told(made)["kv_bytes"]],
            "append": told(appended), "generate": told(made)}


def one_question(client, session, asked, answer):
    """On a fork, so that no question sees another."""
    fork = client.post(f"/v1/sessions/{session}/fork")["id"]
    client.post(f"/v1/sessions/{fork}/append", ids=asked)
    reply = client.generate(fork, len(answer))
    client.ask("DELETE", f"/v1/sessions/{fork}")
    return {"expected": answer, "got": reply["ids"], "right": reply["ids"] == answer,
            "kv_bytes": told(reply)["kv_bytes"], "restored_chunks": told(reply)["restored_chunks"]}


def turns(args):
    with Server(args, "--draft", args.draft or "none") as server:
        client = server.client()
        texts, questions = turn_ids(client, args, Facts(args.seed))
        around, session = server.around(), client.post("/v1/sessions")["id"]
        done = []
        for i, ids in enumerate(texts):
            done.append(one_turn(client, args, session, ids))
            if (i + 1) % max(1, args.turns // 10) == 0:
                print(f"  turn {i + 1}  {1e3 * done[-1]['s']:.4g} ms, log "
                      f"{done[-1]['generate']['log_length']}", flush=True)
        asked = [one_question(client, session, *q) for q in questions]
        around = server.end(around)
    tenth = max(1, args.turns // 10)
    first, last = ([t["s"] for t in part] for part in (done[:tenth], done[-tenth:]))
    ratio = statistics.median(last) / statistics.median(first)
    kv = sorted({b for t in done for b in t["kv_bytes"]} | {q["kv_bytes"] for q in asked})
    right = sum(q["right"] for q in asked) / len(asked)
    length = done[-1]["generate"]["log_length"]
    summary = {"log_length": length, "first_tenth_s": spread(first), "last_tenth_s": spread(last),
               "ratio": ratio, "kv_bytes": kv, "questions": len(asked), "recall": right,
               "bars": [least("tokens of the log", 34800, length),
                        most("turn p50, last tenth over the first", 1.05, ratio),
                        most("different kv_bytes", 1, len(kv)), least("kv_bytes", 1, kv[0]),
                        least("questions", 100, len(asked)), least("recall", 0.95, right)]}
    return {**server.about(), "turns": done, "questions": asked, "summary": summary,
            "arounds": [around]}


# --- resend: a history that a stateless client sends again, edited near its front ---


def history(client, args, words, seed):
    """Messages of about args.history tokens; the first has a clock behind 44 tokens of text."""
    at, per = seed * 977 % (len(words) // 2), 120
    front = client.post("/v1/detokenize", tokens=words[at:at + 44])["content"]
    out, n, who = [{"role": "system", "content": front + " Clock: {clock}."}], 0, "user"
    while n < 1.02 * args.history:  # texts cut at tokens may be fewer
        at = (at + per) % (len(words) - per)
        text = client.post("/v1/detokenize", tokens=words[at:at + per])["content"]
        out.append({"role": who, "content": text})
        n, who = n + per + 6, "assistant" if who == "user" else "user"
    if who == "assistant":  # the last one is the user's
        return out
    return out[:-1]


def with_clock(messages, clock):
    first = {**messages[0], "content": messages[0]["content"].replace("{clock}", clock)}
    return [first, *messages[1:]]


CLOCKS = {"same length": ("12:07", "12:08"), "longer": ("12:07", "12:08:45 on Tuesday")}


def chat(client, messages, n, **more):
    start = time.monotonic()
    reply = client.post("/v1/chat/completions", messages=messages, max_tokens=n, temperature=0,
                        **more)
    return reply, time.monotonic() - start


def resend_once(client, args, words, edit, seed):
    messages, (before, after) = history(client, args, words, seed), CLOCKS[edit]
    reply, first = chat(client, with_clock(messages, before), args.tokens)
    more = [*messages, {"role": "assistant", "content": reply["choices"][0]["message"]["content"]},
            {"role": "user", "content": "What came next?"}]
    again, second = chat(client, with_clock(more, after), args.tokens)
    front = messages[0]["content"].partition("{clock}")[0]
    return {"edit": edit, "edit_token": len(client.tokens("<|im_start|>system\n" + front, True)),
            "first_s": first, "second_s": second, "ratio": second / first,
            "prompt_tokens": [r["usage"]["prompt_tokens"] for r in (reply, again)],
            "first": told(reply), "second": told(again)}


def resend(args):
    rounds = []
    with Server(args, "--draft", args.draft or "auto") as server:
        client = server.client()
        words = client.tokens(FILLER.read_text(encoding="utf-8")[:1 << 19])
        around = server.around()
        for i in range(args.rounds):
            for j, edit in enumerate(CLOCKS):
                rounds.append(resend_once(client, args, words, edit,
                                          args.seed + len(CLOCKS) * i + j))
                r = rounds[-1]
                print(f"  round {i + 1}, {edit}: {r['prompt_tokens'][0]} tokens "
                      f"{r['first_s']:.3g} s, again {r['second_s']:.3g} s ({r['ratio']:.1%}), "
                      f"reused {r['second']['tokens_reused']}, "
                      f"reread {r['second']['tokens_reread']}", flush=True)
        around = server.end(around)
    by_edit = {e: [r for r in rounds if r["edit"] == e] for e in CLOCKS}
    summary = {e: {"ratio": spread([r["ratio"] for r in of]),
                   "reread": spread([r["second"]["tokens_reread"] for r in of])}
               for e, of in by_edit.items()}
    found = [most(f"second over first, {e}", 0.05, s["ratio"]["median"])
             for e, s in summary.items()]
    found.append(least("tokens of the history", 30000, min(r["prompt_tokens"][0] for r in rounds)))
    found.append(least("replies that say what was reused", len(rounds),
                       sum(r["second"]["tokens_reused"] > 0 for r in rounds)))
    return {**server.about(), "rounds": rounds, "summary": {**summary, "bars": found},
            "arounds": [around]}


# --- tools: calls under a schema, over unconstrained generation ---


SCHEMA = {
    "type": "object", "additionalProperties": False,
    "required": ["city", "days", "unit", "alerts", "stations", "area"],
    "properties": {
        "city": {"type": "string", "minLength": 1, "maxLength": 24},
        "days": {"type": "integer", "minimum": 1, "maximum": 14},
        "unit": {"enum": ["celsius", "fahrenheit", "kelvin"]},
        "alerts": {"type": "boolean"},
        "stations": {"type": "array", "maxItems": 3,
                     "items": {"type": "string", "maxLength": 12}},
        "area": {"type": "object", "additionalProperties": False, "required": ["radius"],
                 "properties": {"radius": {"type": "integer", "minimum": 0, "maximum": 500},
                                "name": {"type": "string", "maxLength": 16}}}}}
TOOL = {"type": "function", "function": {"name": "forecast", "parameters": SCHEMA, "description":
        "Weather of the next days"}}


def faults(value, schema, at="arguments"):
    """Why a value is not valid for a schema, of the keywords that SCHEMA has."""
    if "enum" in schema:
        return [] if value in schema["enum"] else [f"{at}: none of the enum"]
    kinds = {"object": dict, "array": list, "string": str, "integer": int, "boolean": bool}
    kind = schema["type"]
    if not isinstance(value, kinds[kind]) or (kind == "integer" and isinstance(value, bool)):
        return [f"{at}: no {kind}"]
    if kind == "object":
        known = schema["properties"]
        out = [f"{at}: {k} is missing" for k in schema["required"] if k not in value]
        out += [f"{at}: {k} is unknown" for k in value if k not in known]
        return out + [f for k in value if k in known
                      for f in faults(value[k], known[k], f"{at}.{k}")]
    if kind == "array":
        out = [f"{at}: too long"] if len(value) > schema["maxItems"] else []
        return out + [f for i, v in enumerate(value)
                      for f in faults(v, schema["items"], f"{at}[{i}]")]
    low, high = ("minLength", "maxLength") if kind == "string" else ("minimum", "maximum")
    size = len(value) if kind == "string" else value
    return [f"{at}: out of range"] * (kind != "boolean" and not
                                      schema.get(low, size) <= size <= schema.get(high, size))


def call_faults(reply):
    """Why a reply is not one call with valid arguments."""
    try:
        (call,) = reply["choices"][0]["message"]["tool_calls"]
        if call["function"]["name"] != TOOL["function"]["name"]:
            return ["another name"]
        return faults(json.loads(call["function"]["arguments"]), SCHEMA)
    except (KeyError, TypeError, ValueError) as e:
        return [f"no call: {type(e).__name__}: {e}"]


def per_token(reply):
    return told(reply)["ms"]["generate"] / max(1, reply["usage"]["completion_tokens"])


def free_session(client, n, sampling, **prompt):
    """Tokens without a constraint behind ids or messages."""
    session = client.post("/v1/sessions")["id"]
    client.post(f"/v1/sessions/{session}/append", **prompt)
    reply = client.generate(session, n, **sampling)
    client.ask("DELETE", f"/v1/sessions/{session}")
    return reply


def tools_once(client, words, i):
    """A call, and as many tokens without a constraint: behind the very same prompt, and behind the
    messages alone, which have no tools before them."""
    at = i * 53 % (len(words) - 40)
    text = client.post("/v1/detokenize", tokens=words[at:at + 40])["content"]
    messages = [{"role": "user", "content": text}]
    sampling = {"temperature": 0.7, "seed": i}
    call = client.post("/v1/chat/completions", messages=messages, tools=[TOOL], max_tokens=1024,
                       parallel_tool_calls=False, **sampling, tool_choice={
                           "type": "function", "function": {"name": TOOL["function"]["name"]}})
    n = max(1, call["usage"]["completion_tokens"])
    log = client.ask("GET", f"/v1/sessions/{told(call)['session']}/log")["ids"]
    prompt = log[:call["usage"]["prompt_tokens"]]
    free = free_session(client, n, sampling, ids=prompt)
    bare = free_session(client, n, sampling, messages=messages)
    return {"faults": call_faults(call), "tokens": n, "call": told(call), "free": told(free),
            "bare": told(bare), "call_ms_token": per_token(call), "free_ms_token": per_token(free),
            "bare_ms_token": per_token(bare), "message": call["choices"][0]["message"]}


def tools(args):
    calls = []
    with Server(args, "--draft", args.draft or "auto") as server:
        client = server.client()
        words = client.tokens(FILLER.read_text(encoding="utf-8")[:200000])
        around = server.around()
        for i in range(args.calls):
            calls.append(tools_once(client, words, i))
            if (i + 1) % max(1, args.calls // 10) == 0:
                print(f"  call {i + 1}  {sum(not c['faults'] for c in calls)} valid", flush=True)
        around = server.end(around)
    bad = sum(bool(c["faults"]) for c in calls)
    tokens = sum(c["tokens"] for c in calls)
    times = {k: sum(c[k]["ms"]["generate"] for c in calls) / tokens
             for k in ("call", "free", "bare")}
    drafted = sum(c["call"]["drafted"] for c in calls)
    summary = {"calls": len(calls), "tokens": tokens, "ms_per_token": times,
               "drafted": drafted, "accepted": sum(c["call"]["accepted"] for c in calls),
               "call_ms_token": spread([c["call_ms_token"] for c in calls]),
               "free_ms_token": spread([c["free_ms_token"] for c in calls]),
               "bare_ms_token": spread([c["bare_ms_token"] for c in calls]),
               "over_bare": times["call"] / times["bare"],
               "bars": [least("calls", 1000, len(calls)), most("calls that are not valid", 0, bad),
                        least("tokens drafted in them", 1, drafted),
                        most("time per token, over unconstrained", 1.05,
                             times["call"] / times["free"])]}
    print(f"  over messages alone, without tools before them: {summary['over_bare']:.2f}")
    return {**server.about(), "schema": SCHEMA, "calls": calls, "summary": summary,
            "arounds": [around]}


# --- the program ---


PARTS = {"throughput": throughput, "soak": soak, "turns": turns, "resend": resend, "tools": tools}
NO_SETTINGS = ("pal", "out", "part", "serve", "model")


def options():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    number = lambda text: int(text) if text.isdecimal() and int(text) > 0 else ap.error(
        f"'{text}' is not a number above 0")
    parts = ap.add_subparsers(dest="part", required=True, metavar="PART")

    def part(name, about, model, **numbers):
        one = parts.add_parser(name, help=about, description=about)
        one.add_argument("--pal", default=str(ROOT / "build" / "pal"))
        one.add_argument("--model", default=model)
        one.add_argument("-t", "--threads", type=number, default=2)
        one.add_argument("--draft", help="as of pal serve (default: as the part says in its file)")
        one.add_argument("--serve", default="", metavar="OPTIONS", help="more for pal serve")
        one.add_argument("--out", default=str(ROOT / "bench" / "results"), metavar="DIR")
        for key, value in numbers.items():
            one.add_argument(f"--{key}", type=number, default=value, help=f"default {value}")
        return one

    part("throughput", "sessions that generate at once, over one alone", "0.6b-q4_k_m",
         sessions=8, prompt=64, tokens=128, rounds=5)
    one = part("soak", "very many sessions under a ceiling of memory", SHIPPED, sessions=256,
               prompt=32, tokens=32)
    one.add_argument("--minutes", type=float, default=10.0)
    one.add_argument("--memory-limit", default="1G", metavar="BYTES")
    part("turns", "one long session: its turns' latency, its memory, its recall", SHIPPED,
         turns=480, prompt=57, tokens=16, questions=100, seed=1)
    part("resend", "a history sent again with an edit near its front", SHIPPED, history=30000,
         tokens=8, rounds=3, seed=1)
    part("tools", "tool calls under a schema, over unconstrained generation", SHIPPED, calls=1000)
    return ap.parse_args()


def main():
    args = options()
    args.pal = os.path.abspath(args.pal)
    here, when = machine.describe(), datetime.now(timezone.utc)
    built = {"commit": compare.commit(), "pal_sha256": compare.sha256(args.pal)}
    print(f"{args.part}, {args.model if args.model != SHIPPED else Path(SHIPPED).name}",
          flush=True)
    found = PARTS[args.part](args)
    if compare.sha256(args.pal) != built["pal_sha256"]:
        raise Failed(f"{args.pal} was replaced while it was measured")
    arounds = found.pop("arounds")
    noise = machine.noise(arounds, args.threads)
    compare.print_bars(found["summary"]["bars"])
    evidence = {"format": FORMAT, "date": when.isoformat(timespec="seconds"), "machine": here,
                **built, "python": sys.version.split()[0], "part": args.part,
                "settings": {k: v for k, v in vars(args).items() if k not in NO_SETTINGS},
                "around": arounds, "not_quiet": noise, **found}
    out = Path(args.out)
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{when:%Y%m%dT%H%M%SZ}-{machine.label(here)}-serving-{args.part}.json"
    path.write_text(json.dumps(evidence, indent=1) + "\n", encoding="utf-8")
    print(f"\nwritten: {path}")
    compare.print_noise(noise)


if __name__ == "__main__":
    try:
        main()
    except (Failed, Refused, subprocess.CalledProcessError, OSError) as error:
        sys.exit(f"serving.py: {error}")
