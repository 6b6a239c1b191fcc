#!/usr/bin/python3
"""The endpoints of `pal serve`, as plain HTTP; prints TAP.

api.py PAL MODEL [unittest arguments]

Every reply is checked with the schema that /openapi.json has for it, and requests are made from
those schemas: what they allow is taken, what they do not is refused by name.
"""
import json
import os
import signal
import subprocess
import sys
import tempfile
import unittest
import urllib.error
import urllib.request

from openapi import Document
from tap import TapRunner

PAL, MODEL = (os.path.abspath(a) for a in sys.argv[1:3])
HI = [{"role": "user", "content": "Hello, there."}]
PARAMETERS = {"type": "object", "properties": {"city": {"enum": ["Rome", "Oslo"]}},
              "required": ["city"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": PARAMETERS}}
BASES = {  # what a request must have, at the least
    "/v1/chat/completions": {"messages": HI, "max_tokens": 2},
    "/v1/completions": {"prompt": "Hello", "max_tokens": 2},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 2},
    "/v1/messages": {"messages": HI, "max_tokens": 2},
    "/v1/messages/count_tokens": {"messages": HI},
    "/v1/tokenize": {"content": "Hello"},
    "/v1/detokenize": {"tokens": [1]},
    "/v1/sessions": {},
    "/v1/sessions/{id}/generate": {"max_tokens": 2},
}
# Fields whose values say nothing alone, or would make tests long.
WITH_OTHERS = {"max_tokens", "max_completion_tokens", "max_output_tokens", "top_logprobs", "best_of",
               "echo", "tool_choice", "previous_response_id", "model", "resume", "response_format",
               "logit_bias", "suffix", "n", "tools", "prompt", "messages", "input", "tokens",
               "stream", "thinking", "text", "chat_template_kwargs", "eos_token_ids", "include"}


class Server:
    def __init__(self, folder):
        self.process = subprocess.Popen(
            [PAL, "serve", MODEL, "--port", "0", "--data-dir", folder, "--template", "qwen3",
             "--quiet"], stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().strip()

    def open(self, method, path, body=None, raw=None):
        data = raw if raw is not None else None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:
                return reply.status, reply.read()
        except urllib.error.HTTPError as e:
            with e:
                return e.code, e.read()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.stdout.close()
        return self.process.wait(timeout=120)


class Case(unittest.TestCase):
    def good(self, method, path, body=None, route=None):
        """The JSON that the route's schema describes."""
        status, text = SERVER.open(method, path, body)
        self.assertEqual(status, 200, text)
        value = json.loads(text)
        schema = SPEC.reply(route or path, method)["application/json"]
        self.assertIsNone(SPEC.problem(value, schema))
        return value

    def bad(self, method, path, body, status, *says):
        got, text = SERVER.open(method, path, body)
        self.assertEqual(got, status, (body, text))
        value = json.loads(text)
        name = "AnthropicError" if path.startswith("/v1/messages") else "Error"
        self.assertIsNone(SPEC.problem(value, {"$ref": "#/components/schemas/" + name}))
        for what in says:
            self.assertIn(what, value["error"]["message"])

    def events(self, path, body, route=None):
        """Data of a stream's events, each checked; the last one may be "[DONE]"."""
        status, text = SERVER.open("POST", path, {**body, "stream": True})
        self.assertEqual(status, 200, text)
        schema = SPEC.reply(route or path, "POST")["text/event-stream"]
        out = []
        for event in text.decode().split("\n\n")[:-1]:
            lines = event.split("\n")
            self.assertTrue(lines[-1].startswith("data: "), event)
            data = lines[-1][6:]
            out.append(data if data == "[DONE]" else json.loads(data))
            if data != "[DONE]":
                self.assertIsNone(SPEC.problem(out[-1], schema))
            if len(lines) == 2:
                self.assertEqual(lines[0], "event: " + out[-1]["type"])
        return out

    def session(self):
        return self.good("POST", "/v1/sessions", {"label": "a test"})["id"]


class Chat(Case):
    path = "/v1/chat/completions"

    def test_same_text_streamed_and_not(self):
        body = {"messages": HI, "max_tokens": 12, "temperature": 0}
        whole = self.good("POST", self.path, body)
        parts = self.events(self.path, {**body, "stream_options": {"include_usage": True}})
        self.assertEqual(parts.pop(), "[DONE]")
        usage = parts.pop()["usage"]
        text = "".join(p["choices"][0]["delta"].get("content", "") for p in parts)
        self.assertEqual(text, whole["choices"][0]["message"]["content"])
        self.assertEqual(usage["completion_tokens"], whole["usage"]["completion_tokens"])
        self.assertTrue(text)

    def test_seeds(self):
        body = {"messages": HI, "max_tokens": 12, "seed": 5, "n": 2}
        two = [c["message"]["content"] for c in self.good("POST", self.path, body)["choices"]]
        again = [self.good("POST", self.path, {**body, "seed": s, "n": 1})["choices"][0]["message"][
            "content"] for s in (5, 6)]
        self.assertEqual(two, again)

    def test_history_is_recognised(self):
        talk = [{"role": "user", "content": "One. " * 40}]
        first = self.good("POST", self.path, {"messages": talk, "max_tokens": 4, "temperature": 0})
        talk += [first["choices"][0]["message"], {"role": "user", "content": "Two."}]
        second = self.good("POST", self.path, {"messages": talk, "max_tokens": 4})
        cached = second["usage"]["prompt_tokens_details"]["cached_tokens"]
        self.assertGreater(cached, first["usage"]["prompt_tokens"] // 2)
        self.assertEqual(cached, second["usage"]["palimpsest"]["tokens_reused"])

    def test_form(self):
        for text in range(4):
            form = {"type": "json_schema", "json_schema": {"name": "x", "schema": PARAMETERS}}
            reply = self.good("POST", self.path, {"messages": HI, "seed": text,
                                                  "response_format": form})
            self.assertIn(json.loads(reply["choices"][0]["message"]["content"])["city"],
                          ("Rome", "Oslo"))

    def test_tools(self):
        body = {"messages": HI, "tools": [TOOL], "tool_choice": "required", "max_tokens": 200,
                "temperature": 0, "parallel_tool_calls": False}
        choice = self.good("POST", self.path, body)["choices"][0]
        self.assertEqual(choice["finish_reason"], "tool_calls")
        call = choice["message"]["tool_calls"][0]
        self.assertEqual(call["function"]["name"], "weather")
        self.assertIn(json.loads(call["function"]["arguments"])["city"], ("Rome", "Oslo"))
        result = {"role": "tool", "tool_call_id": call["id"], "content": "Rain."}
        self.good("POST", self.path, {"messages": HI + [choice["message"], result],
                                      "tools": [TOOL], "tool_choice": "none", "max_tokens": 4})
        deltas = [p["choices"][0]["delta"] for p in self.events(self.path, body)[:-1]]
        calls = [d["tool_calls"][0]["function"] for d in deltas if "tool_calls" in d]
        self.assertEqual("".join(c["arguments"] for c in calls), call["function"]["arguments"])

    def test_other_models(self):
        self.bad("POST", self.path, {"messages": HI, "model": "other"}, 404, "other")


class Others(Case):
    def test_completions(self):
        reply = self.good("POST", "/v1/completions", {
            "prompt": ["One", "Two"], "n": 2, "max_tokens": 3, "logprobs": 3})
        self.assertEqual([c["index"] for c in reply["choices"]], [0, 1, 2, 3])
        for choice in reply["choices"]:
            self.assertEqual("".join(choice["logprobs"]["tokens"]), choice["text"])
        body = {"prompt": "One", "max_tokens": 6, "temperature": 0}
        text = "".join(p["choices"][0]["text"] for p in self.events("/v1/completions", body)[:-1])
        self.assertEqual(text, self.good("POST", "/v1/completions", body)["choices"][0]["text"])

    def test_responses(self):
        first = self.good("POST", "/v1/responses", {"input": "Hello. " * 40, "max_output_tokens": 5})
        events = self.events("/v1/responses", {"input": "And?", "max_output_tokens": 5,
                                               "previous_response_id": first["id"]})
        self.assertEqual([e["sequence_number"] for e in events], list(range(len(events))))
        self.assertEqual(events[0]["type"], "response.created")
        last = events[-1]["response"]
        self.assertIn(last["status"], ("completed", "incomplete"))
        self.assertGreater(last["usage"]["input_tokens_details"]["cached_tokens"], 0)
        path, route = "/v1/responses/" + last["id"], "/v1/responses/{id}"
        self.assertEqual(self.good("GET", path, route=route), last)
        items = self.good("GET", path + "/input_items", route=route + "/input_items")
        self.assertEqual(len(items["data"]), 1)
        self.assertTrue(self.good("DELETE", path, route=route)["deleted"])
        self.bad("GET", path, None, 404, last["id"])

    def test_messages(self):
        body = {"messages": HI, "system": "Be brief.", "max_tokens": 9, "temperature": 0}
        whole = self.good("POST", "/v1/messages", body)
        events = self.events("/v1/messages", body)
        self.assertEqual(events[0]["type"], "message_start")
        self.assertEqual(events[-1]["type"], "message_stop")
        text = "".join(e["delta"]["text"] for e in events if e["type"] == "content_block_delta")
        self.assertEqual(text, whole["content"][0]["text"])
        count = self.good("POST", "/v1/messages/count_tokens",
                          {"messages": HI, "system": "Be brief."})["input_tokens"]
        usage = whole["usage"]
        self.assertEqual(count, usage["input_tokens"] + usage["cache_read_input_tokens"])
        used = self.good("POST", "/v1/messages", {
            "messages": HI, "max_tokens": 200, "tool_choice": {"type": "any"},
            "tools": [{"name": "weather", "input_schema": PARAMETERS}]})
        self.assertEqual(used["stop_reason"], "tool_use")
        self.assertIn(used["content"][-1]["input"]["city"], ("Rome", "Oslo"))
        self.bad("POST", "/v1/messages", {"messages": HI}, 400, "max_tokens")

    def test_models_and_tokens(self):
        name = self.good("GET", "/v1/models")["data"][0]["id"]
        for known in ("palimpsest", "default", os.path.basename(MODEL)[:-5]):
            self.good("GET", "/v1/models/" + known, route="/v1/models/{id}")
        self.good("POST", "/v1/chat/completions", {"model": name, "messages": HI, "max_tokens": 1})
        tokens = self.good("POST", "/v1/tokenize", {"content": "Hello, world"})["tokens"]
        text = self.good("POST", "/v1/detokenize", {"tokens": tokens})["content"]
        self.assertEqual(text, "Hello, world")
        self.good("GET", "/v1/status")


class Sessions(Case):
    def test_a_life(self):
        path, route = "/v1/sessions/" + self.session(), "/v1/sessions/{id}"
        self.good("POST", path + "/append", {"text": "Once upon a time"}, route + "/append")
        body = {"max_tokens": 6}
        made = self.good("POST", path + "/generate", body, route + "/generate")
        ids = self.good("GET", path + "/log", route=route + "/log")["ids"]
        self.assertEqual(ids[-len(made["ids"]):], made["ids"])
        fork = self.good("POST", path + "/fork", {"label": "two"}, route + "/fork")
        self.assertEqual((fork["length"], fork["label"]), (len(ids), "two"))
        status, file = SERVER.open("GET", path + "/export")
        self.assertEqual(status, 200)
        status, copy = SERVER.open("POST", "/v1/sessions/import", raw=file)
        self.assertEqual(status, 200, copy)
        # all three go on in the same way, streamed or not
        copies = [path, "/v1/sessions/" + fork["id"], "/v1/sessions/" + json.loads(copy)["id"]]
        went_on = [self.good("POST", c + "/generate", body, route + "/generate")["ids"]
                   for c in copies[:2]]
        parts = self.events(copies[2] + "/generate", body, route + "/generate")
        went_on.append([i for p in parts[:-1] for i in p["ids"]])
        self.assertEqual(went_on[0], went_on[1])
        self.assertEqual(went_on[0], went_on[2])
        memory = self.good("GET", path + "/memory", route=route + "/memory")
        self.assertEqual(memory["length"], self.good("GET", path, route=route)["length"])
        page = self.good("GET", "/v1/sessions?limit=2", route="/v1/sessions")
        self.assertGreaterEqual(page["total"], 3)
        self.assertEqual(len(page["data"]), 2)
        for c in copies:
            self.assertTrue(self.good("DELETE", c, route=route)["deleted"])
            self.bad("GET", c, None, 404)

    def test_refusals(self):
        path = "/v1/sessions/" + self.session()
        self.bad("POST", path + "/generate", {}, 400)  # nothing to go on from
        self.bad("POST", path + "/append", {"ids": [1 << 30]}, 400, "ids")
        self.bad("POST", path + "/append", {}, 400, "text, ids and messages")
        status, _ = SERVER.open("POST", "/v1/sessions/import", raw=b"no session")
        self.assertEqual(status, 400)


class Schemas(Case):
    """Requests made from /openapi.json."""

    def routes(self):
        session = self.session()
        self.good("POST", f"/v1/sessions/{session}/append", {"text": "Hello"},
                  "/v1/sessions/{id}/append")
        for route, base in BASES.items():
            schema = SPEC.paths[route]["post"]["requestBody"]["content"]["application/json"]
            yield route.replace("{id}", session), base, SPEC.resolve(schema["schema"])["properties"]

    def test_what_is_allowed(self):
        for path, base, fields in self.routes():
            for name, schema in fields.items():
                schema = SPEC.resolve(schema)
                values = [v for k, v in schema.items() if k in ("minimum", "maximum", "default")]
                values += schema.get("enum") or {"boolean": [True, False], "string": ["a"]}.get(
                    schema.get("type"), [])
                for value in [] if name in WITH_OTHERS else values:
                    status, text = SERVER.open("POST", path, {**base, name: value})
                    self.assertEqual(status, 200, (path, name, value, text))

    def test_what_is_not(self):
        wrong = {"integer": ["1", 1.5, [], {}, True], "number": ["1", [], True],
                 "boolean": ["true", 1, []], "string": [1, True, {}], "array": [1, "a", {}],
                 "object": [1, "a", []]}
        for path, base, fields in self.routes():
            for name, schema in fields.items():
                schema = SPEC.resolve(schema)
                values = [v + d for k, d in (("minimum", -1), ("maximum", 1))
                          for v in [schema.get(k)] if v is not None]
                for value in values + wrong.get(schema.get("type"), []):
                    self.bad("POST", path, {**base, name: value}, 400, name)

    def test_no_json(self):
        for path, _, _ in self.routes():
            for raw in (b"{", b"[]", b'{"a":1,"a":2}', b'{"a":"\xff"}', b'{"a":"\\u0000"}', b"\0"):
                status, text = SERVER.open("POST", path, raw=raw)
                self.assertEqual(status, 400, (path, raw, text))
                self.assertIn("JSON", json.loads(text)["error"]["message"])


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as data:
        SERVER = Server(data)
        try:
            SPEC = Document(json.loads(SERVER.open("GET", "/openapi.json")[1]))
            program = unittest.main(argv=sys.argv[:1] + sys.argv[3:], testRunner=TapRunner,
                                    exit=False)
        finally:
            code = SERVER.stop()
    sys.exit(code or not program.result.wasSuccessful())
