#!/usr/bin/python3
"""The official clients of OpenAI's and Anthropic's APIs, unchanged, against pal serve, as TAP.

clients.py PAL MODEL [unittest arguments]

`openai` (PyPI and npm) and `anthropic` (PyPI) are fetched once into
$XDG_CACHE_HOME/palimpsest-tests/clients. The shipped model is small and writes little sense: what is
looked at are shapes, reasons to stop, forms that must hold, equal bits for equal seeds, and counts.
"""
import json
import os
import subprocess
import sys
import tempfile
import typing
import unittest

from serving import Server
from tap import TapRunner

PAL, MODEL = (os.path.abspath(a) for a in sys.argv[1:3])
HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"),
                     "palimpsest-tests/clients")
VERSIONS = ["openai==3.57.0", "anthropic==2.13.0"]
NPM = "openai@7.57.0"
SCHEMA = {"type": "object", "additionalProperties": False, "required": ["city", "days"],
          "properties": {"city": {"enum": ["Oslo", "Rome"]},
                         "days": {"type": "integer", "minimum": 1, "maximum": 9}}}
TOOLS = [{"type": "function", "function": {"name": "forecast", "description": "The weather to come",
                                           "parameters": SCHEMA}},
         {"type": "function", "function": {"name": "stop", "parameters":
                                           {"type": "object", "properties": {}}}}]
NAMED = {"type": "function", "function": {"name": "forecast"}}
HELLO = [{"role": "user", "content": "What is a compiler?"}]


def fetch():
    done = None
    if not os.path.exists(os.path.join(CACHE, "python/anthropic")):
        done = subprocess.run([sys.executable, "-m", "pip", "install", "--quiet",
                               "--disable-pip-version-check", "--target", CACHE + "/python",
                               *VERSIONS], capture_output=True, text=True, timeout=300,
                              check=False)
    if not (done and done.returncode) and not os.path.exists(CACHE + "/node_modules/openai"):
        done = subprocess.run(["npm", "install", "--prefix", CACHE, "--no-audit", "--no-fund",
                               "--ignore-scripts", NPM], capture_output=True, text=True,
                              timeout=300, check=False)
    if done and done.returncode:
        sys.exit("fetching the clients: " + done.stderr.strip()[-400:])
    sys.path.insert(0, CACHE + "/python")


fetch()
import anthropic  # noqa: E402
import openai  # noqa: E402
import pydantic  # noqa: E402


class Trip(pydantic.BaseModel):
    city: typing.Literal["Oslo", "Rome"]
    far: bool


def valid(arguments):
    value = json.loads(arguments) if isinstance(arguments, str) else arguments
    return list(value) == ["city", "days"] and value["city"] in ("Oslo", "Rome") and \
        isinstance(value["days"], int) and 1 <= value["days"] <= 9


class Case(unittest.TestCase):
    options = ()

    @classmethod
    def setUpClass(cls):
        cls.server = Server(PAL, MODEL, "--draft", "auto", *cls.options)
        cls.ai = openai.OpenAI(base_url=cls.server.url + "/v1", api_key="none", max_retries=0)
        cls.claude = anthropic.Anthropic(base_url=cls.server.url, api_key="none", max_retries=0)

    @classmethod
    def tearDownClass(cls):
        cls.ai.close()
        cls.claude.close()
        code, said = cls.server.close()
        assert code == 0, said


class Chat(Case):
    def chat(self, messages=HELLO, **more):
        return self.ai.chat.completions.create(model="palimpsest", messages=messages,
                                               **{"max_tokens": 24, **more})

    def test_plain(self):
        r = self.chat(temperature=0)
        self.assertEqual((r.object, r.choices[0].message.role), ("chat.completion", "assistant"))
        self.assertIn(r.choices[0].finish_reason, ("stop", "length"))
        self.assertEqual(r.usage.total_tokens, r.usage.prompt_tokens + r.usage.completion_tokens)
        self.assertEqual(r.usage.model_extra["palimpsest"]["committed"], r.usage.total_tokens)

    def test_stream_is_the_same(self):
        whole = self.chat(seed=5, temperature=1).choices[0]
        parts = list(self.chat(seed=5, temperature=1, stream=True,
                               stream_options={"include_usage": True}))
        text = "".join(p.choices[0].delta.content or "" for p in parts if p.choices)
        self.assertEqual(text, whole.message.content)
        self.assertEqual([p.choices[0].finish_reason for p in parts if p.choices][-1],
                         whole.finish_reason)
        self.assertGreater(parts[-1].usage.completion_tokens, 0)

    def test_seeds_and_n(self):
        r = self.chat(n=3, seed=7, temperature=1)
        self.assertEqual([c.index for c in r.choices], [0, 1, 2])
        again = self.chat(n=3, seed=7, temperature=1)
        self.assertEqual([c.message.content for c in r.choices],
                         [c.message.content for c in again.choices])

    def test_n_streamed(self):
        whole = self.chat(n=2, seed=7, temperature=1).choices
        texts = ["", ""]
        for p in self.chat(n=2, seed=7, temperature=1, stream=True):
            for c in p.choices:
                texts[c.index] += c.delta.content or ""
        self.assertEqual(texts, [c.message.content for c in whole])

    def test_stop(self):
        free = self.chat(temperature=0, max_tokens=40).choices[0].message.content
        stop = free[5:8]
        r = self.chat(temperature=0, max_tokens=40, stop=[stop]).choices[0]
        self.assertEqual((r.message.content, r.finish_reason), (free[:free.index(stop)], "stop"))

    def test_logprobs(self):
        content = self.chat(logprobs=True, top_logprobs=3, temperature=0).choices[0].logprobs.content
        for one in content:
            self.assertEqual(len(one.top_logprobs), 3)
            self.assertLessEqual(one.logprob, 0)
            self.assertEqual(one.top_logprobs[0].token, one.token)

    def test_history_is_reused(self):
        first = self.chat([{"role": "user", "content": "Tell me more about the kernel. " * 20}])
        again = self.chat([{"role": "user", "content": "Tell me more about the kernel. " * 20},
                           {"role": "assistant", "content": first.choices[0].message.content},
                           {"role": "user", "content": "Go on."}])
        self.assertGreater(again.usage.prompt_tokens_details.cached_tokens,
                           first.usage.prompt_tokens - 16)

    def test_json_object(self):
        r = self.chat(response_format={"type": "json_object"}, max_tokens=400, seed=1)
        if r.choices[0].finish_reason == "stop":
            self.assertIsInstance(json.loads(r.choices[0].message.content), dict)

    def test_json_schema(self):
        for seed in range(4):
            r = self.chat(seed=seed, temperature=1, max_tokens=200, response_format={
                "type": "json_schema", "json_schema": {"name": "trip", "schema": SCHEMA}})
            self.assertEqual(r.choices[0].finish_reason, "stop")
            self.assertTrue(valid(r.choices[0].message.content), r.choices[0].message.content)

    def test_parsed_into_a_class(self):
        for seed in range(3):
            c = self.ai.chat.completions.parse(model="palimpsest", messages=HELLO, max_tokens=100,
                                               seed=seed, response_format=Trip).choices[0]
            self.assertIsInstance(c.message.parsed, Trip)
        r = self.ai.responses.parse(model="palimpsest", input="Where?", max_output_tokens=100,
                                    text_format=Trip)
        self.assertIsInstance(r.output_parsed, Trip)

    def test_drafts_are_told(self):
        talk = [{"role": "user", "content": "One, two, three, four. " * 30}]
        r = self.chat(talk, temperature=0, max_tokens=100).usage.model_extra["palimpsest"]
        self.assertLessEqual(r["accepted"], r["drafted"])
        self.assertGreater(r["forwards"], 0)

    def test_tools(self):
        for choice in ("required", NAMED):
            c = self.chat(tools=TOOLS, tool_choice=choice, parallel_tool_calls=False, seed=3,
                          max_tokens=200).choices[0]
            self.assertEqual(c.finish_reason, "tool_calls")
            call = c.message.tool_calls[0].function
            self.assertIn(call.name, ("forecast", "stop") if choice == "required" else ("forecast",))
            self.assertTrue(call.name == "stop" or valid(call.arguments))
        for choice in ("none", "auto"):
            c = self.chat(tools=TOOLS, tool_choice=choice, seed=3).choices[0]
            self.assertTrue(choice == "auto" or not c.message.tool_calls)

    def test_tool_calls_streamed_and_answered(self):
        name, arguments, call_id = "", "", ""
        for p in self.chat(tools=TOOLS, tool_choice=NAMED, parallel_tool_calls=False, stream=True,
                           max_tokens=200):
            for call in (p.choices[0].delta.tool_calls or []) if p.choices else []:
                name += call.function.name or ""
                arguments += call.function.arguments or ""
                call_id += call.id or ""
        self.assertEqual(name, "forecast")
        self.assertTrue(valid(arguments), arguments)
        r = self.chat([*HELLO, {"role": "assistant", "content": None, "tool_calls": [
            {"id": call_id, "type": "function",
             "function": {"name": name, "arguments": arguments}}]},
            {"role": "tool", "tool_call_id": call_id, "content": "Rain"}], tools=TOOLS)
        self.assertGreater(r.usage.completion_tokens, 0)

    def test_errors_are_the_clients_own(self):
        for error, more in ((openai.BadRequestError, {"temperature": 9}),
                            (openai.BadRequestError, {"messages": []}),
                            (openai.BadRequestError, {"max_tokens": -1}),
                            (openai.BadRequestError, {"frequency_penalty": 1}),
                            (openai.NotFoundError, {"model": "no-such-model"})):
            with self.subTest(more), self.assertRaises(error):
                self.ai.chat.completions.create(**{"model": "palimpsest", "messages": HELLO,
                                                   "max_tokens": 4, **more})


class Others(Case):
    def test_models(self):
        names = [m.id for m in self.ai.models.list().data]
        self.assertEqual(self.ai.models.retrieve(names[0]).id, names[0])

    def test_completions(self):
        r = self.ai.completions.create(model="palimpsest", prompt="The kernel", max_tokens=8,
                                       temperature=0, echo=True)
        self.assertTrue(r.choices[0].text.startswith("The kernel"))
        parts = self.ai.completions.create(model="palimpsest", prompt="The kernel", max_tokens=8,
                                           temperature=0, stream=True)
        self.assertEqual("The kernel" + "".join(p.choices[0].text for p in parts if p.choices),
                         r.choices[0].text)
        r = self.ai.completions.create(model="palimpsest", prompt="The kernel", max_tokens=8,
                                       seed=1, logprobs=2).choices[0]
        self.assertEqual("".join(r.logprobs.tokens), r.text)
        self.assertTrue(all(p <= 0 for p in r.logprobs.token_logprobs))
        r = self.ai.completions.create(model="palimpsest", prompt=["One", "Two"], max_tokens=3, n=2)
        self.assertEqual(len(r.choices), 4)

    def respond(self, **body):
        return self.ai.responses.create(**{"model": "palimpsest", "max_output_tokens": 16, **body})

    def test_responses(self):
        rules = "Be short. " * 20
        first = self.respond(input="What is a compiler?", instructions=rules)
        self.assertEqual((first.object, first.output[0].type), ("response", "message"))
        second = self.respond(input="And then?", previous_response_id=first.id, instructions=rules)
        self.assertGreater(second.usage.input_tokens_details.cached_tokens,
                           first.usage.input_tokens - 16)
        self.assertEqual(self.ai.responses.retrieve(first.id).output_text, first.output_text)
        self.assertEqual(self.ai.responses.input_items.list(first.id).data[0].role, "user")
        self.ai.responses.delete(first.id)
        with self.assertRaises(openai.BadRequestError):
            self.respond(input="x", previous_response_id=first.id)

    def test_responses_streamed(self):
        kinds, text = [], ""
        for event in self.respond(input="What is a compiler?", stream=True):
            kinds.append(event.type)
            text += event.delta if event.type == "response.output_text.delta" else ""
        self.assertEqual(kinds[:2], ["response.created", "response.in_progress"])
        self.assertIn(kinds[-1], ("response.completed", "response.incomplete"))
        self.assertEqual(event.response.output_text, text)

    def test_responses_in_a_form(self):
        r = self.respond(input="Where?", max_output_tokens=200, text={
            "format": {"type": "json_schema", "name": "trip", "schema": SCHEMA}})
        self.assertTrue(valid(r.output_text), r.output_text)
        r = self.respond(input="Where?", max_output_tokens=200, tool_choice="required", tools=[
            {"type": "function", "name": "forecast", "parameters": SCHEMA, "strict": True}])
        call = [o for o in r.output if o.type == "function_call"][0]
        self.assertTrue(valid(call.arguments), call.arguments)

    def test_responses_with_calls(self):
        tools = [{"type": "function", "name": "forecast", "parameters": SCHEMA}]
        choice = {"type": "function", "name": "forecast"}
        arguments = ""
        for event in self.respond(input="Where?", max_output_tokens=200, tools=tools, stream=True,
                                  tool_choice=choice, parallel_tool_calls=False):
            if event.type == "response.function_call_arguments.delta":
                arguments += event.delta
        call = event.response.output[-1]
        self.assertEqual((event.type, call.type), ("response.completed", "function_call"))
        self.assertEqual(call.arguments, arguments)
        self.assertTrue(valid(arguments), arguments)
        result = {"type": "function_call_output", "call_id": call.call_id, "output": "Rain"}
        r = self.respond(input=[result], previous_response_id=event.response.id, tools=tools,
                         tool_choice="none")
        self.assertEqual(r.output[-1].type, "message")
        r = self.respond(tools=tools, tool_choice="none", input=[
            {"role": "user", "content": "Where?"}, call.to_dict(), result])
        self.assertGreater(r.usage.output_tokens, 0)

    def test_messages(self):
        r = self.claude.messages.create(model="palimpsest", max_tokens=16, messages=HELLO,
                                        system="Be short.")
        self.assertIn(r.stop_reason, ("end_turn", "max_tokens"))
        self.assertEqual(r.content[0].type, "text")
        with self.claude.messages.stream(model="palimpsest", max_tokens=16, messages=HELLO) as s:
            text = "".join(s.text_stream)
            last = s.get_final_message()
        self.assertEqual(text, last.content[0].text)
        self.assertGreater(last.usage.output_tokens, 0)

    def test_messages_with_tools(self):
        tool = {"name": "forecast", "input_schema": SCHEMA}
        r = self.claude.messages.create(model="palimpsest", max_tokens=200, messages=HELLO,
                                        tools=[tool], tool_choice={"type": "any"})
        use = [b for b in r.content if b.type == "tool_use"][0]
        self.assertEqual((r.stop_reason, use.name), ("tool_use", "forecast"))
        self.assertTrue(valid(use.input))
        r = self.claude.messages.create(model="palimpsest", max_tokens=8, tools=[tool], messages=[
            *HELLO, {"role": "assistant", "content": [
                {"type": "tool_use", "id": use.id, "name": use.name, "input": use.input}]},
            {"role": "user", "content": [
                {"type": "tool_result", "tool_use_id": use.id, "content": "Rain"}]}])
        self.assertGreater(r.usage.output_tokens, 0)

    def test_messages_streamed_with_tools(self):
        with self.claude.messages.stream(
                model="palimpsest", max_tokens=200, messages=HELLO,
                tools=[{"name": "forecast", "input_schema": SCHEMA}],
                tool_choice={"type": "tool", "name": "forecast",
                             "disable_parallel_tool_use": True}) as s:
            parts = "".join(e.partial_json for e in s if e.type == "input_json")
            last = s.get_final_message()
        self.assertEqual(last.stop_reason, "tool_use")
        self.assertTrue(valid(last.content[-1].input))
        self.assertEqual(json.loads(parts), last.content[-1].input)

    def test_messages_that_stop(self):
        ask = {"model": "palimpsest", "max_tokens": 40, "messages": HELLO,
               "extra_body": {"temperature": 0}}  # the client itself has it no more
        free = self.claude.messages.create(**ask).content[0].text
        stop = free[5:8]
        r = self.claude.messages.create(**ask, stop_sequences=[stop])
        self.assertEqual((r.stop_reason, r.stop_sequence), ("stop_sequence", stop))
        self.assertEqual(r.content[0].text, free[:free.index(stop)])

    def test_messages_count_and_errors(self):
        n = self.claude.messages.count_tokens(model="palimpsest", messages=HELLO).input_tokens
        r = self.claude.messages.create(model="palimpsest", max_tokens=4, messages=HELLO)
        self.assertEqual(n, r.usage.input_tokens + (r.usage.cache_read_input_tokens or 0))
        with self.assertRaises(anthropic.NotFoundError):
            self.claude.messages.create(model="no-such", max_tokens=4, messages=HELLO)
        with self.assertRaises(anthropic.BadRequestError):
            self.claude.messages.create(model="palimpsest", max_tokens=0, messages=HELLO)

    def test_node(self):
        done = subprocess.run(["node", os.path.join(HERE, "clients.mjs"), self.server.url,
                               CACHE + "/node_modules/openai/index.mjs"], capture_output=True,
                              text=True, timeout=120, check=False)
        self.assertEqual((done.returncode, done.stdout.strip()), (0, "all well"), done.stderr)


class Sessions(Case):
    def ask(self, method, path, body=None):
        status, reply = self.server.ask(method, "/v1/sessions" + path, body)
        self.assertEqual(status, 200, reply)
        return reply

    def test_a_session(self):
        one = self.ask("POST", "", {"label": "first"})["id"]
        self.ask("POST", f"/{one}/append", {"text": "The kernel is the part that"})
        two = self.ask("POST", f"/{one}/fork", {"label": "second"})["id"]
        a, b = (self.ask("POST", f"/{i}/generate", {"max_tokens": 12, "temperature": 1, "seed": 4})
                for i in (one, two))
        self.assertEqual(a["ids"], b["ids"])
        info = self.ask("GET", f"/{one}")
        self.assertEqual(info["length"], len(self.ask("GET", f"/{one}/log")["ids"]))
        self.assertEqual(self.ask("GET", f"/{one}/memory")["length"], info["length"])
        self.assertEqual({s["id"] for s in self.ask("GET", "")["data"]}, {one, two})
        for i in (one, two):
            self.assertTrue(self.ask("DELETE", f"/{i}")["deleted"])
        self.assertEqual(self.server.ask("GET", f"/v1/sessions/{one}")[0], 404)


class Full(Case):
    options = ("--max-sessions", "1")

    def test_no_place(self):
        """That of a session that is not to be lost is no other's."""
        one = self.server.ask("POST", "/v1/sessions", {})[1]["id"]
        with self.assertRaises(openai.RateLimitError):
            self.ai.completions.create(model="palimpsest", prompt="The", max_tokens=2)
        with self.assertRaises(anthropic.RateLimitError):
            self.claude.messages.create(model="palimpsest", max_tokens=4, messages=HELLO)
        self.server.ask("DELETE", f"/v1/sessions/{one}")
        self.ai.completions.create(model="palimpsest", prompt="The", max_tokens=2)


class Keys(Case):
    @classmethod
    def setUpClass(cls):
        cls.file = tempfile.NamedTemporaryFile("w", suffix=".keys")
        cls.file.write("a-key-of-the-first-client\na-key-of-the-second-client\n")
        cls.file.flush()
        cls.options = ("--api-key-file", cls.file.name)
        super().setUpClass()

    def test_keys(self):
        with self.assertRaises(openai.AuthenticationError):
            self.ai.models.list()
        with self.assertRaises(anthropic.AuthenticationError):
            self.claude.messages.create(model="palimpsest", max_tokens=4, messages=HELLO)
        ai = openai.OpenAI(base_url=self.server.url + "/v1", api_key="a-key-of-the-first-client")
        self.assertTrue(ai.models.list().data)
        ai.close()

    def test_sessions_are_their_owners(self):
        first, second = "a-key-of-the-first-client", "a-key-of-the-second-client"
        one = self.server.ask("POST", "/v1/sessions", {}, key=first)[1]["id"]
        self.assertEqual(self.server.ask("GET", f"/v1/sessions/{one}", key=second)[0], 404)
        self.assertEqual(self.server.ask("GET", f"/v1/sessions/{one}", key=first)[0], 200)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *sys.argv[3:]], testRunner=TapRunner)
