"""Conversations made from the question and answer pairs of corpus.py, by templates.

conversation() gives one training text in ChatML: one to three turns, so that a reply
begins where a reply should and ends with <|im_end|>. Nothing here is written by a model.
"""
import re

SYSTEM = [
    "You are a helpful assistant.",
    "You are Palimpsest, a small language model. Answer briefly.",
    "Answer the question in one or two sentences.",
]
TERM = [
    "What is {x}?", "What is {x}?", "what is {x}", "What does {x} mean?", "Define {x}.",
    "Explain {x}.", "Tell me about {x}.", "Can you explain what {x} is?",
    "What do you know about {x}?", "{x}?", "I do not know what {x} is. Please explain.",
    "Give me a definition of {x}.",
]
NAME = [
    "What is {x}?", "What does {x} do?", "What is {x} for?", "Explain {x}.",
    "When would I use {x}?", "Describe {x} in one sentence.",
]
SECTION = [
    "Tell me about {x}.", "Explain: {X}", "Write a short text about {x}.", "{X}",
    "What should I know about {x}?", "Please say something about {x}.",
]
PART_OF_SPEECH = r"((n|v|vt|vi|adj|adv|interj|excl|prov|abbrev)\., *)*(n|v|vt|vi|adj)\. "
SMALL = [  # written by hand: greetings, thanks, what this model is
    (["Hello", "Hello!", "Hi", "hi there", "Good morning", "Hey"],
     ["Hello! Ask me about a command, a term or a program.",
      "Hello. What would you like to know?"]),
    (["Who are you?", "What are you?", "What is your name?", "who are you",
      "Tell me about yourself.", "Introduce yourself."],
     ["I am Palimpsest, a small language model trained on free software documentation. "
      "I can write sentences about computers, but I am too small to be relied on."]),
    (["What can you do?", "How can you help me?", "help", "What do you know?"],
     ["I was trained on manuals and a dictionary of computing. Ask me what a term means, and I "
      "will try to answer. I am small and often wrong."]),
    (["Thanks", "Thank you!", "Thank you very much.", "thanks, that helps"],
     ["You are welcome.", "You are welcome. Is there anything else?"]),
    (["Bye", "Goodbye", "See you", "That is all."], ["Goodbye."]),
    (["Are you right?", "Is that true?", "Are you sure?", "Can I trust you?"],
     ["Please check it: I am a very small model and I make mistakes."]),
    (["How are you?", "how are you doing"],
     ["I am a program, and I am running. What would you like to know?"]),
]


def shorten(text, limit):
    """Whole sentences up to about limit characters; at least the first one."""
    out = ""
    for sentence in re.split(r"(?<=[.!?])\s+(?=[A-Z\"'(])", text):
        if out and len(out) + len(sentence) > limit:
            break
        out += (" " if out else "") + sentence
    return out


def lower_first(text):
    return text[0].lower() + text[1:] if len(text) > 1 and text[1].islower() else text


def turn(rng, kind, q, a):
    limit = rng.choice([120, 200, 300, 450])
    if kind == "faq":
        return q, shorten(a, limit + 100)
    if kind == "section":
        return rng.choice(SECTION).format(x=lower_first(q), X=q), shorten(a, limit + 100)
    a = shorten(a, limit)
    if kind == "name":
        x = re.sub(r"^git-", "git ", q.split(",")[0].strip())
        return rng.choice(NAME).format(x=x), f"{x}: {a}."
    x = q if q.isupper() or rng.random() < 0.7 else lower_first(q)
    a = re.sub(r"^(/[^/]+/,? *)?" + PART_OF_SPEECH, "", a)
    a = re.sub(r"^(\[[^]]*\] *)+", "", a)
    m = re.match(r"\(([^)]{1,40})\) +(.*)", a)
    also = f", also called {m.group(1)}," if m else ""
    body = m.group(2) if m else a
    if re.match(r"(An?|The|One|Any|Either) ", body):
        a = f"{x[0].upper() + x[1:]}{also} is {body[0].lower() + body[1:]}"
    else:
        a = f"{x[0].upper() + x[1:]}: {body}" if rng.random() < 0.8 else body
    return rng.choice(TERM).format(x=x), a


def conversation(rng, pairs):
    """pairs: the (kind, q, a) to use, one to three of them. Returns ChatML text."""
    out = ""
    if rng.random() < 0.25:
        out += f"<|im_start|>system\n{rng.choice(SYSTEM)}<|im_end|>\n"
    turns = [turn(rng, *p) for p in pairs]
    if rng.random() < 0.12:
        asked, answers = rng.choice(SMALL)
        turns.insert(rng.choice([0, 0, len(turns)]), (rng.choice(asked), rng.choice(answers)))
    for q, a in turns:
        out += f"<|im_start|>user\n{q}<|im_end|>\n<|im_start|>assistant\n{a}<|im_end|>\n"
    return out
