#!/usr/bin/env python3
"""Collects the training text: documentation out of Debian packages, as clean English.

  corpus.py WORK [--packages packages.txt]

Downloads the packages (apt-get download), unpacks them under WORK without installing
anything, and writes

  WORK/docs.jsonl   one document a line: {"package", "path", "text"}
  WORK/pairs.jsonl  question and answer pairs made from definitions, man page names,
                    glossaries, FAQ headings and sections: {"kind", "q", "a"}
  WORK/packages.json  what was read: version, licence notes and bytes of text by package

Standard library only.
"""
import argparse
import collections
import gzip
import hashlib
import html.parser
import json
import pathlib
import re
import subprocess

SKIP_TAGS = {"script", "style", "head", "nav", "footer", "form", "svg", "button", "select"}
SKIP_CLASSES = {
    "sphinxsidebar", "related", "headerlink", "navheader", "navfooter", "footer", "toc",
    "contents", "toctree-wrapper", "breadcrumbs", "navigation", "sidebar", "nav-chapters",
    "linenos", "permalink", "indextable", "modindextable", "searchbox", "top", "toplang",
    "bottomlang", "srclink", "menu", "viewcode-link", "pagelogo", "apache", "qv",
    "directive-nav", "footnote-backref", "navi", "docs-header", "topic", "up", "pgFooter",
    "trademark", "legalnotice", "copyright", "comments_section",
}
SKIP_IDS = {"quickview", "sidebar", "page-header", "path", "preamble-nav", "footer",
            "global-nav"}
BLOCKS = {
    "p", "div", "li", "ul", "ol", "dl", "dt", "dd", "table", "tr", "blockquote", "section",
    "article", "main", "body", "br", "hr", "title", "item", "note", "steps", "list", "terms",
    "screen", "code-block",
}
HEADS = {"h1": "#", "h2": "##", "h3": "###", "h4": "####", "h5": "####", "h6": "####"}
VOID = {"br", "hr", "img", "input", "meta", "link", "col", "wbr", "area", "base", "source"}
SKIP_PATHS = re.compile(
    r"genindex|modindex|/search\.html|changelog|translations/|/search|bookindex|/ix01|/release-"
    r"|copyright|news\.html|misc/history|/toc\.html|doc-index|sitemap|print\.html|/license"
    r"|indexes\.html|quickreference|directives\.html|/theindex|std_index|keyword-list")
TIDY = {ord(a): b for a, b in zip(
    "\u00a0\u2018\u2019\u201c\u201d\u2013\u2014\u2212\u2010\u2011\u2026\u00b6\u200b\u00ad\ufeff"
    "\u2022\u2192",
    [" ", "'", "'", '"', '"', "-", " - ", "-", "-", "-", "...", "", "", "", "", "-", "->"])}


class Page(html.parser.HTMLParser):
    """HTML (and Mallard help pages) to blocks: (kind, text), kind one of
    "#".."####" for headings, "p", "li", "dt", "dd" and "pre"."""

    def __init__(self, mallard=False):
        super().__init__(convert_charrefs=True)
        self.blocks, self.text, self.kind = [], [], "p"
        self.stack, self.skip, self.pre, self.mallard = [], None, 0, mallard

    def flush(self):
        text = "".join(self.text).translate(TIDY)
        self.text = []
        if self.pre:
            text = "\n".join(line.rstrip() for line in text.expandtabs(4).strip("\n").splitlines())
            if text.strip():
                self.blocks.append(("pre", text))
            return
        text = re.sub(r"\s+", " ", text).strip(" |")
        if text:
            self.blocks.append((self.kind, text))
        self.kind = "p"

    def handle_starttag(self, tag, attrs):
        if tag in VOID:
            if tag in ("br", "hr") and self.skip is None:
                self.text.append("\n" if self.pre else " ")
            return
        self.stack.append(tag)
        if self.skip is not None:
            return
        a = dict(attrs)
        classes = set((a.get("class") or "").split())
        if tag in SKIP_TAGS or classes & SKIP_CLASSES or a.get("id") in SKIP_IDS or \
                a.get("role") == "navigation" or \
                (self.mallard and tag in ("info", "media", "comment")):
            self.skip = len(self.stack)
            return
        if tag == "pre" or (self.mallard and tag in ("screen",)):
            self.flush()
            self.pre += 1
        elif tag in HEADS or (self.mallard and tag == "title"):
            self.flush()
            self.kind = HEADS.get(tag) or "##"
        elif tag in BLOCKS and not self.pre:
            if not (tag in ("p", "div") and self.kind in ("li", "dd") and not self.text):
                self.flush()
            if tag in ("li", "dt", "dd"):
                self.kind = tag
            elif tag == "item":
                self.kind = "li"
        elif tag in ("td", "th") and not self.pre and "".join(self.text).strip():
            self.text.append(" | ")

    def handle_endtag(self, tag):
        if tag in VOID or tag not in self.stack:
            return
        while self.stack and self.stack.pop() != tag:
            pass
        if self.skip is not None:
            if len(self.stack) < self.skip:
                self.skip = None
            return
        if tag == "pre" or (self.mallard and tag == "screen"):
            self.flush()
            self.pre = max(0, self.pre - 1)
        elif (tag in HEADS or tag in BLOCKS) and not self.pre:
            self.flush()

    def handle_data(self, data):
        if self.skip is None:
            self.text.append(data)


def html_blocks(text, mallard=False):
    page = Page(mallard)
    page.feed(text)
    page.close()
    page.flush()
    return page.blocks


POD_CODE = re.compile(r"[A-Z]<([^<>]*)>")


def pod_inline(text):
    text = re.sub(r"[CBIFLSX]<<+ (.*?) >>+", r"\1", text, flags=re.S)
    escapes = {"lt": "\x01", "gt": "\x02", "sol": "/", "verbar": "|"}
    text = re.sub(r"E<(lt|gt|sol|verbar)>", lambda m: escapes[m.group(1)], text)
    text = re.sub(r"X<[^<>]*>|Z<>", "", text)
    text = re.sub(r"L<(?:([^<>|]*)\|)?([^<>]*)>",
                  lambda m: m.group(1) or m.group(2).strip("/\""), text)
    for _ in range(4):
        text = POD_CODE.sub(r"\1", text)
    return text.replace("\x01", "<").replace("\x02", ">")


def pod_blocks(text):
    blocks, on, hidden = [], False, False
    for par in re.split(r"\n[ \t]*\n", text):
        par = par.strip("\n")
        m = re.match(r"=(\w+)\s*(.*)", par, re.S)
        if m:
            word, rest = m.group(1), pod_inline(re.sub(r"\s+", " ", m.group(2))).strip()
            on = word != "cut"
            if word in ("begin", "for"):
                hidden = word == "begin"
            elif word == "end":
                hidden = False
            elif word.startswith("head"):
                blocks.append(("#" * min(4, int(word[4:] or 1) + 1), rest))
            elif word == "item" and rest not in ("*", ""):
                blocks.append(("dt", rest))
        elif on and not hidden and par.strip():
            if par[0] in " \t":
                blocks.append(("pre", par.expandtabs(4)))
            else:
                blocks.append(("p", re.sub(r"\s+", " ", pod_inline(par)).strip()))
    return blocks


ROFF = [
    (r"\\f(?:\[[^]]*\]|\(..|.)", ""), (r"\\-", "-"), (r"\\\((?:aq|cq)", "'"),
    (r"\\\[?\(?(?:lq|rq|dq)\]?", '"'), (r"\\\((?:bu|em|en)", "-"), (r"\\\[(?:char)?[^]]*\]", ""),
    (r"\\s[-+]?\d+", ""), (r"\\&|\\\||\\\^|\\/|\\,", ""), (r"\\e", r"\\"), (r"\\(?:~|0| )", " "),
    (r"\\\((..)", ""), (r"\\%", ""), (r"\\:", ""), (r"\\c$", ""),
]


def roff_line(line):
    for pattern, to in ROFF:
        line = re.sub(pattern, to, line)
    return line


def roff_args(rest, join):
    args = re.findall(r'"((?:[^"]|"")*)"|(\S+)', rest)
    return join.join(a.replace('""', '"') or b for a, b in args)


def roff_blocks(text):
    """Man pages in the man macros."""
    blocks, par, pre, tag = [], [], False, False

    def flush():
        nonlocal par
        body = "\n".join(par) if pre else re.sub(r"\s+", " ", " ".join(par)).strip()
        if body.strip():
            blocks.append(("pre" if pre else "p", body.strip("\n")))
        par = []

    for line in text.splitlines():
        if re.match(r"[.']\s*\\\"", line):
            continue
        m = re.match(r"[.']\s*([A-Za-z]+)\s*(.*)", line)
        if not m:
            if not line.startswith((".", "'")):
                par.append(roff_line(line))
                if tag:
                    blocks.append(("dt", roff_line(line)))
                    par, tag = [], False
            continue
        macro, rest = m.group(1), m.group(2)
        if macro in ("SH", "SS"):
            flush()
            blocks.append(("##" if macro == "SH" else "###", roff_line(roff_args(rest, " "))))
        elif macro in ("PP", "P", "LP", "IP", "TP", "TQ", "HP", "sp", "RS", "RE"):
            flush()
            tag = macro in ("TP", "TQ")
            if macro == "IP" and rest and not rest.startswith("\\"):
                blocks.append(("dt", roff_line(roff_args(rest, " ").split(" ")[0])))
        elif macro in ("nf", "EX", "fi", "EE"):
            flush()
            pre = macro in ("nf", "EX")
        elif macro in ("B", "I", "BR", "BI", "IR", "IB", "RB", "RI", "SM", "SB", "UR", "MR"):
            join = " " if macro in ("B", "I", "SM", "SB") else ""
            text_ = roff_line(roff_args(rest, join))
            if tag:
                blocks.append(("dt", text_))
                tag = False
            else:
                par.append(text_)
    flush()
    return blocks


def dictd_entries(text):
    """dictd databases: head words at column 0, the definition indented."""
    heads, body, out = [], [], []
    for line in text.splitlines() + ["end"]:
        if line and not line[0].isspace():
            if body and any(b.strip() for b in body):
                out.append((heads, "\n".join(body)))
                heads, body = [], []
            heads.append(line.strip())
        else:
            body.append(line)
    for heads, body in out:
        if heads[0].startswith("00"):
            continue
        body = re.sub(r"\{([^{}]*)\}", lambda m: re.sub(r"\s+", " ", m.group(1)), body)
        body = re.sub(r"\n\s*\(\d{4}-\d\d-\d\d\)\s*$", "", body.rstrip())
        pars = [re.sub(r"\s+", " ", p).strip() for p in re.split(r"\n\s*\n", body)]
        pars = [re.sub(r"^(<[^>]*>\s*)+", "", p) for p in pars if p]
        yield heads, [p for p in pars if p and "http" not in p and not p.startswith("(ftp")]


# ---------------------------------------------------------------------------------------------

def good(text):
    """English enough: mostly ASCII, mostly letters."""
    if not text or sum(c < "\x7f" for c in text) < 0.985 * len(text):
        return False
    return sum(c.isalpha() or c == " " for c in text) > 0.6 * len(text)


COMMON = {"the", "of", "to", "and", "is", "in", "a", "for", "that", "be", "it", "this", "with",
          "you"}


def english(blocks):
    """Not one of the translations that some packages hold beside the English text."""
    words = re.findall(r"\w+", " ".join(t for k, t in blocks if k in ("p", "li", "dd")).lower())
    return sum(w in COMMON for w in words) >= 0.15 * len(words)


class Collector:
    def __init__(self):
        self.seen, self.docs, self.pairs = set(), [], []
        self.bytes = collections.Counter()
        self.short = collections.Counter()

    def fresh(self, text, keep_short=True):
        """Whether a paragraph was not seen before (boilerplate repeats)."""
        key = re.sub(r"\W+", " ", text.lower())
        if len(key) < 40 and keep_short:
            self.short[key] += 1
            return self.short[key] <= 60
        digest = hashlib.blake2b(key.encode(), digest_size=8).digest()
        if digest in self.seen:
            return False
        self.seen.add(digest)
        return True

    def add(self, package, path, blocks):
        lines, head, first, prose = [], None, True, 0
        if not english(blocks):
            return
        for i, (kind, text) in enumerate(blocks):
            if kind != "pre" and not good(text):
                if kind not in ("dt", "#", "##", "###", "####") or not text.isascii():
                    continue
            if kind == "pre":
                if not text.isascii() or len(text) > 3000 or not self.fresh(text):
                    continue
                lines.append(text)
                continue
            if kind.startswith("#"):
                text = re.sub(r"^((Chapter|Appendix|Part) )?[A-Z]?\d*(\.\d+)*\.? +", "", text)
                head, first = text, True
                while lines and lines[-1].startswith("#") and lines[-1].split(" ")[0] >= kind:
                    lines.pop()  # a heading with nothing under it
                lines.append(f"{kind} {text}")
                continue
            if not self.fresh(text):
                continue
            if kind == "p" and (len(text) > 40 or (head or "").upper() == "NAME"):
                self.section(head, text, first)
                first = False
            prose += len(text) if len(text) > 60 else 0
            if kind == "dd" and lines and i and blocks[i - 1][0] == "dt":
                if "glossary" in path and len(text) > 30:
                    self.pairs.append(("term", blocks[i - 1][1], text))
            lines.append("- " + text if kind == "li" else text)
        if prose < 400:
            return
        joined = []
        for line in lines:
            tight = joined and joined[-1].startswith("- ") and line.startswith("- ")
            joined += ([] if not joined else ["\n" if tight else "\n\n"]) + [line]
        text = "".join(joined)
        self.docs.append((package, path, text))
        self.bytes[package] += len(text)

    def section(self, head, text, first):
        if not head or not first:
            return
        if head.upper() == "NAME" and " - " in text and len(text) < 200:
            self.pairs.append(("name", *text.rstrip(".").split(" - ", 1)))
        elif len(text) > 600 or text[-1] not in ".!":
            return
        elif head.endswith("?") and 8 < len(head) < 120:
            self.pairs.append(("faq", head, text))
        elif 2 <= len(head.split()) <= 7 and len(head) < 60 and head.isascii() \
                and head[0].isupper() and text[0].isupper() and re.fullmatch(r"[\w ,'()/-]+", head):
            self.pairs.append(("section", head, text))


def read(path):
    data = path.read_bytes()
    if data[:2] == b"\x1f\x8b":
        data = gzip.decompress(data)
    return data.decode("utf-8", "replace")


def collect(c, package, root, keep, cap):
    """keep: a regular expression over paths; cap: bytes of text at most, 0 for no limit."""
    files = sorted(p for p in root.rglob("*") if p.is_file() and not p.is_symlink())
    files = [p for p in files if re.search(keep, str(p.relative_to(root)))]
    files = [p for p in files if not SKIP_PATHS.search(str(p.relative_to(root)).lower())]
    # A cap keeps a spread of files, not the first of them.
    files.sort(key=lambda p: hashlib.blake2b(str(p.relative_to(root)).encode()).digest())
    for p in files:
        if cap and c.bytes[package] > cap:
            break
        name, text = str(p.relative_to(root)), read(p)
        if name.endswith(".dict.dz"):
            dictionary(c, package, text)
        elif name.endswith(".pod") or "/perl" in name and name.endswith(".3perl.gz"):
            c.add(package, name, pod_blocks(text))
        elif name.endswith((".html", ".page")):
            c.add(package, name, html_blocks(text, name.endswith(".page")))
        elif re.search(r"\.\d\w*\.gz$", name):
            if not text.startswith(".so"):
                c.add(package, name, roff_blocks(text))


def dictionary(c, package, text):
    for i, (heads, pars) in enumerate(dictd_entries(text)):
        pars = [p for p in pars if good(p)]
        if not pars:
            continue
        body = "\n\n".join(pars)
        c.docs.append((package, f"{package}/{heads[0]}", f"{heads[0]}\n\n{body}"))
        c.bytes[package] += len(body)
        c.pairs.append(("entry", heads[0], pars[0]))


def main():
    ap = argparse.ArgumentParser(description=__doc__,
                                 formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("work", type=pathlib.Path)
    ap.add_argument("--packages", type=pathlib.Path,
                    default=pathlib.Path(__file__).parent / "packages.txt")
    a = ap.parse_args()
    debs, trees = a.work / "debs", a.work / "x"
    debs.mkdir(parents=True, exist_ok=True)
    c, about = Collector(), {}
    for line in a.packages.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        package, keep, cap, licence = (field.strip() for field in line.split("\t"))
        if not list(debs.glob(package + "_*.deb")):
            subprocess.run(["apt-get", "download", "-qq", package], cwd=debs, check=True)
        deb = next(debs.glob(package + "_*.deb"))
        if not (trees / package).exists():
            subprocess.run(["dpkg", "-x", deb, trees / package], check=True)
        collect(c, package, trees / package, keep, int(float(cap) * 1e6))
        version = subprocess.run(["dpkg-deb", "-f", deb, "Version"], check=True, text=True,
                                 capture_output=True).stdout.strip()
        about[package] = {"version": version, "licence": licence, "bytes": c.bytes[package]}
        print(f"{package} {version}: {c.bytes[package] / 1e6:.2f} MB", flush=True)
    with open(a.work / "docs.jsonl", "w") as f:
        for package, path, text in c.docs:
            f.write(json.dumps({"package": package, "path": path, "text": text}) + "\n")
    with open(a.work / "pairs.jsonl", "w") as f:
        for kind, q, answer in c.pairs:
            f.write(json.dumps({"kind": kind, "q": q, "a": answer}) + "\n")
    (a.work / "packages.json").write_text(json.dumps(about, indent=1) + "\n")
    kinds = collections.Counter(kind for kind, _, _ in c.pairs)
    print(f"{len(c.docs)} documents, {sum(c.bytes.values()) / 1e6:.1f} MB; pairs: {dict(kinds)}")


main()
