"""The strings that tokenizers.py compares tokenizers on: deterministic, in named groups.

texts(specials) gives (group, text) for valid text; broken() gives (group, bytes) that are no
UTF-8, which Hugging Face tokenizers cannot take.
"""
import random
import unicodedata

SENTENCES = """
The quick brown fox jumps over the lazy dog; it didn't mind, and they'll say WE'VE seen it.
Falsches Üben von Xylophonmusik quält jeden größeren Zwerg. Straße, STRASSE, ẞ.
Voix ambiguë d'un cœur qui, au zéphyr, préfère les jattes de kiwis. L'été, c'est « fini ».
El pingüino Wenceslao hizo kilómetros bajo exhaustiva lluvia y frío, ¿añoraba a su querido cachorro?
Pijamalı hasta yağız şoföre çabucak güvendi. İstanbul'da ışık, DİYARBAKIR.
Pchnąć w tę łódź jeża lub ośm skrzyń fig. Příliš žluťoučký kůň úpěl ďábelské ódy.
Съешь же ещё этих мягких французских булок, да выпей чаю. Жебракують філософи при ґанку церкви.
Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. Ἐν ἀρχῇ ἦν ὁ λόγος, καὶ ὁ λόγος ἦν πρὸς τὸν θεόν.
אבגדה שפן סקרן קרא אמר. בְּרֵאשִׁית בָּרָא אֱלֹהִים אֵת הַשָּׁמַיִם
صِف خَلقَ خَودِ كَمِثلِ الشَمسِ إِذ بَزَغَت ١٢٣٤٥٦٧٨٩٠ ۱۲۳۴۵۶۷۸۹۰ پیغام
ऋषियों को सताने वाले दुष्ट राक्षसों के राजा रावण का सर्वनाश १२३४
আমি কাঁচ খেতে পারি, তাতে আমার কোনো ক্ষতি হয় না। ৳১২৩
நான் கண்ணாடி சாப்பிடுவேன், அதனால் எனக்கு ஒரு கேடும் வராது. తెలుగు భాష ಕನ್ನಡ മലയാളം
เป็นมนุษย์สุดประเสริฐเลิศคุณค่า กว่าบรรดาฝูงสัตว์เดรัจฉาน ລາວ ខ្មែរ မြန်မာ
我能吞下玻璃而不伤身体。天地玄黃，宇宙洪荒。１２３ＡＢＣ「引用」
いろはにほへと ちりぬるを わかよたれそ つねならむ。ﾊﾝｶｸ ｶﾀｶﾅ ガギグゲゴ パピプペポ
다람쥐 헌 쳇바퀴에 타고파. 키스의 고유조건은 입술끼리 만나야 한다. ㄱㄴㄷ
ᚠᛇᚻ᛫ᛒᛦᚦ ᚦᚩᚱᚾ᛫ᛒᛦᚦ 𐌼𐌰𐌲 𐌲𐌻𐌴𐍃 𓀀𓁐𓂀 𝔘𝔫𝔦𝔠𝔬𝔡𝔢 𝟘𝟙𝟚 ⅣⅧ ½⅓ x² H₂O №5 ℃
ქართული ენა Հայերեն አማርኛ ᏣᎳᎩ ᐃᓄᒃᑎᑐᑦ ᠮᠣᠩᠭᠣᠯ བོད་སྐད་ ߒߞߏ ⵜⴰⵎⴰⵣⵉⵖⵜ
Tôi có thể ăn thủy tinh mà không hại gì. Đường phố Nguyễn Huệ.
""".strip().split("\n")

CODE = [
    "static int f(const char *s, size_t n)\n{\n\tfor (size_t i = 0; i < n; i++)\n"
    "\t\tif (s[i] == '\\n')\n\t\t\treturn -1;\n\treturn 0;\n}\n",
    "def g(x, *, y=None):\n    \"\"\"Doc.\"\"\"\n    return {k: v**2 for k, v in x.items() if v != y}\n",
    "fn main() -> Result<(), Box<dyn Error>> {\n    println!(\"{:?}\", vec![1u8; 16]);\n}\n",
    "SELECT a.id, COUNT(*) FROM t AS a WHERE a.x >= 10 AND b LIKE '%y%' GROUP BY 1;\r\n",
    "<!DOCTYPE html>\n<table>\n  <tr><td class=\"x\">1</td></tr>\n</table>\n<h1>It's</h1>\n",
    "{\"k\": [1, 2.5e-10, true, null, \"\\u00e9\"], \"nested\": {\"a\": []}}",
    "#!/bin/sh\nset -eu\nfor f in *.c; do\n\techo \"$f\" | sed 's/\\.c$//' >>out 2>&1\ndone\n",
    "const f = async (a,b) => { await Promise.all([a?.b ?? c, ...d]); /* x */ }\n",
    "| a | b |\n|---|:-:|\n| **x** | `y` |\n\n- [ ] todo\n- [x] done\n\n> quote\n\n```c\nx\n```\n",
    "https://example.org:8080/a/b?c=d&e=%20f#g mailto:who@example.org 192.168.0.1 ::1 0xDEADBEEF",
    "\\frac{1}{\\sqrt{2\\pi}} e^{-x^2/2} \\quad \\forall x \\in \\mathbb{R}: x^2 \\ge 0",
    "diff --git a/x b/x\n@@ -1,3 +1,4 @@\n-old\n+new\n \n",
]

EMOJI = ["😀", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇫🇷", "👍🏽", "1️⃣", "❤️", "❤", "🧑🏿‍🚀", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "👨‍💻", "🤷🏻‍♀️", "☺︎", "©️", "🫠", "🫶🏼"]

BLANKS = [" ", " ", " ", "  ", "\t", "\n", "\n\n", "\r\n", "\r", "\x0b", "\x0c", "\x1c", "\x85",
          "\u00a0", "\u1680", "\u180e", "\u2003", "\u200b", "\u2028", "\u2029", "\u202f",
          "\u205f", "\u3000", "\ufeff", "\u2581"]

SHORT = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d", "'S", "'T", "'RE", "'Ve", "'vE", "'M",
         "'LL", "'Ll", "'D", "\u2019s", "\u2019LL", "'\u017f", "''s", "'sx", "'x", "'", "'tis",
         "'rE", "' s", "'\u212a"]

MARKS = ["\u0300", "\u0301", "\u0302", "\u0308", "\u0323", "\u0327", "\u0328", "\u0338", "\u0345",
         "\u0315", "\u031b", "\u05b0", "\u05bc", "\u064b", "\u0651", "\u093c", "\u094d", "\u0e38",
         "\u0f71", "\u0f74", "\u3099", "\u309a", "\u20dd", "\ufe0f", "\u1161", "\u11a8"]


def assigned(low, high):
    return [chr(c) for c in range(low, high)
            if not 0xD800 <= c < 0xE000 and unicodedata.category(chr(c)) != "Cn"]


def _scripts(rng):
    """Each block of 128 code points that has characters (large scripts: some blocks)."""
    for low in range(0, 0x110000, 128):
        big = 0x3400 <= low < 0xA000 or 0xAC00 <= low < 0xD780 or low >= 0x17000
        if big and low % 2048 and not 0x1F000 <= low < 0x1FB00:
            continue
        chars = assigned(low, low + 128)
        if not chars or 0xE000 <= low < 0xF900 or low >= 0xF0000:
            continue
        yield "".join(chars)
        yield " ".join(chars)
        words = ["".join(rng.choices(chars, k=rng.randint(1, 9))) for _ in range(20)]
        yield " ".join(words)
        yield ", ".join(words) + ". " + "".join(rng.choices(chars + ["1", "a", "'s"], k=30))


def _any_characters(rng):
    for _ in range(150):
        out = []
        for _ in range(rng.randint(1, 40)):
            c = rng.choice([rng.randrange(0x80), rng.randrange(0x3000), rng.randrange(0x110000)])
            out.append(" " if 0xD800 <= c < 0xE000 else chr(c))
        yield "".join(out)


def _blanks(rng):
    for length in list(range(1, 40)) + [62, 63, 64, 65, 100, 127, 128, 129]:
        for blank in (" ", "\n", "\t", "\r\n", "\u2581"):
            yield "a" + blank * length + "b"
            yield blank * length
    for _ in range(300):
        yield "".join(rng.choice(["", "x", "Word", "3", ".", "é", "中"])
                      + "".join(rng.choices(BLANKS, k=rng.randint(1, 6)))
                      for _ in range(rng.randint(1, 12)))


def _numbers(rng):
    digits = "0123456789"
    sets = [digits, "٠١٢٣٤٥٦٧٨٩", "०१२३४५६७८९", "０１２３４５６７８９", "²³¹¼½ⅣⅧ①②㊿", "𝟘𝟙𝟚𝟛𝟜"]
    for length in range(1, 30):
        for s in sets:
            yield "".join(rng.choices(s, k=length))
    for _ in range(100):
        yield rng.choice(["", "$", "-", "v", "#"]) + rng.choice([",", ".", ":", "/", " ", "_", "e"]).join(
            "".join(rng.choices(digits, k=rng.randint(1, 8))) for _ in range(rng.randint(1, 6)))


def _contractions(rng):
    words = ["I", "we", "DON", "don", "it", "Él", "你", "", " ", "x1", "(", "they\n", "'"]
    for _ in range(200):
        yield "".join(rng.choice(words) + rng.choice(SHORT) + rng.choice(["", " ", "s", "."])
                      for _ in range(rng.randint(1, 8)))


def _combining(rng):
    bases = list("aeiouAEOncszZ<=>") + ["é", "ü", "α", "и", "ה", "ا", "क", "ก", "か", "ハ", "가", "ᄀ", "각",
                                        "Å", "ﬁ", "豈", "ẛ̣", "Ǆ", "ͅ", "ཀ"]
    for _ in range(300):
        yield "".join(rng.choice(bases) + "".join(rng.choices(MARKS, k=rng.randint(0, 5)))
                      + rng.choice(["", "", " ", "1"]) for _ in range(rng.randint(1, 12)))
    for sentence in SENTENCES:
        for form in ("NFD", "NFKD", "NFC"):
            yield unicodedata.normalize(form, sentence)
    yield "a" + "\u0301\u0323" * 2000 + "b"
    yield "한글".join(unicodedata.normalize("NFD", "다람쥐 헌 쳇바퀴") for _ in range(20))


def _emoji(rng):
    yield from EMOJI
    for _ in range(150):
        yield "".join(rng.choice(EMOJI) + rng.choice(["", "", " ", "a", "!", "\u200d", "\ufe0f"])
                      for _ in range(rng.randint(1, 10)))


def _code(rng):
    yield from CODE
    for _ in range(150):
        lines = "".join(rng.choices(CODE, k=3)).split("\n")
        rng.shuffle(lines)
        indent = rng.choice(["", "  ", "    ", "\t", "\t\t", " " * 7])
        yield rng.choice(["\n", "\r\n", "\n\n"]).join(indent + line for line in lines)


def _punctuation(rng):
    marks = "!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~«»¿¡…—–•→∀≠€£¥§¶†"
    for _ in range(200):
        out = []
        for _ in range(rng.randint(1, 10)):
            out.append(rng.choice(marks) * rng.choice([1, 1, 2, 3, 17]))
            out.append(rng.choice(["", " ", "a", "\n", "\r\n", "1", "\n\n"]))
        yield "".join(out)


def _prose(rng):
    yield from SENTENCES
    words = " ".join(SENTENCES).split(" ")
    for _ in range(250):
        yield " ".join(rng.choices(words, k=rng.randint(2, 30)))
    for _ in range(100):
        yield "".join(rng.choices("".join(SENTENCES), k=rng.randint(5, 80)))


def _specials(rng, specials):
    for s in specials:
        yield s
    for _ in range(300):
        out = []
        for _ in range(rng.randint(1, 8)):
            s = rng.choice(specials)
            cut = rng.randrange(len(s) + 1)
            out.append(rng.choice([s, s, s, s[:cut], s[cut:], "<" + s, s + ">", s.upper()]))
            out.append(rng.choice(["", "", " ", "\n", "  ", "user\n", "hé", "e\u0301", "\u0338"]))
        yield "".join(out)


def _long(rng):
    letters = "abcdefghijklmnopqrstuvwxyz"
    for size in (1000, 20000, 100000):
        yield "a" * size
        yield "".join(rng.choices(letters, k=size))
        yield "".join(rng.choices(letters.upper() + letters + "+/0123456789", k=size))
    yield " " * 10000
    yield " " * 10000 + "x"
    yield "\n" * 5000 + " " * 31 + "x"
    yield "=" * 10000
    yield "1234567890" * 2000
    yield "天地玄黃宇宙洪荒" * 3000
    yield "😀" * 3000
    yield "ab " * 20000
    yield "\u2581" * 3000


def texts(specials):
    """specials: the added tokens of a tokenizer."""
    rng = random.Random(20260101)
    groups = (("prose", _prose(rng)), ("scripts", _scripts(rng)),
              ("any characters", _any_characters(rng)), ("blanks", _blanks(rng)),
              ("numbers", _numbers(rng)), ("contractions", _contractions(rng)),
              ("combining", _combining(rng)), ("emoji", _emoji(rng)), ("code", _code(rng)),
              ("punctuation", _punctuation(rng)), ("specials", _specials(rng, specials)),
              ("long", _long(rng)))
    yield "empty", ""
    for group, strings in groups:
        for s in strings:
            yield group, s


def broken():
    rng = random.Random(20260102)
    for _ in range(200):
        yield "random bytes", rng.randbytes(rng.randint(1, 60))
    for _ in range(300):
        raw = bytearray(" ".join(rng.choices(SENTENCES, k=2)).encode())
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(raw))
            change = rng.randrange(3)
            if change == 0:
                raw[at] = rng.randrange(256)
            elif change == 1:
                del raw[at]
            else:
                raw.insert(at, rng.choice([0x80, 0xC0, 0xE2, 0xED, 0xF0, 0xF5, 0xFF]))
        yield "damaged text", bytes(raw)
    for raw in (b"\xc0\x80", b"\xed\xa0\x80", b"\xed\xbf\xbf", b"\xf4\x90\x80\x80", b"\xe2\x82",
                b"\xf0\x9f\x98", b"a\xffb", b"\x80" * 5000, b"\xf0\x9f\x98" * 1000, b"\xfe\xff\x00a"):
        yield "known bad", raw
