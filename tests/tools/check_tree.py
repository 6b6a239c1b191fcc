#!/usr/bin/env python3
"""Checks what the tree promises about itself, as TAP: a test for each promise.

- folders of src/ depend one way only, in the order below (from the #include lines);
- a module is a .c and a .h of the same name, or a part of one in its folder; header guards
  follow the path; unit tests mirror src/;
- memory comes from base/mem.h alone; no libm and no unbounded string functions where the
  contracts forbid them;
- the sources are formatted as .clang-format says;
- no file holds a path of somebody's machine or the address of a package registry;
- every folder of tests/ has a README.md, and links between documents lead somewhere.
"""
import os
import re
import shutil
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
ORDER = ["base", "kernels", "text", "memory", "model", "restore", "draft", "session",
         "serve", "plane", "eval", "cli"]
# Folders whose .c files need no header of their own: a subcommand or an instruction set each.
FILE_EACH = {"cli", "kernels"}
LIBM = r"\b(?:exp|exp2|expm1|log|log2|log10|pow|sin|cos|tan|tanh|erf)f?\s*\("


def tracked():
    """Files under version control; without git, all but builds and caches."""
    try:
        out = subprocess.run(["git", "ls-files", "-z", "--cached", "--others",
                              "--exclude-standard"], cwd=ROOT, check=True,
                             capture_output=True).stdout
        names = [os.fsdecode(n) for n in out.split(b"\0") if n]
    except (OSError, subprocess.CalledProcessError):
        names = []
        for folder, folders, files in os.walk(ROOT):
            folders[:] = [d for d in folders if d not in (".git", ".cache", ".venv", "__pycache__")
                          and not d.startswith("build")]
            names += [os.path.relpath(os.path.join(folder, f), ROOT) for f in files]
    return sorted(n for n in names if os.path.isfile(os.path.join(ROOT, n)))


def read(name):
    with open(os.path.join(ROOT, name), encoding="utf-8", errors="replace") as f:
        return f.read()


def code(name):
    """The file without comments and strings, line numbers kept."""
    def blank(m):
        return re.sub(r"[^\n]", " ", m.group())
    return re.sub(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"', blank, read(name), flags=re.S)


def folder_of(name):
    parts = name.split("/")
    return parts[1] if parts[0] == "src" and len(parts) > 2 else None


def grep(names, pattern, message, text=code):
    found = []
    for name in names:
        for number, line in enumerate(text(name).split("\n"), 1):
            m = re.search(pattern, line)
            if m:
                found.append(f"{name}:{number}: {message}: {m.group().strip()}")
    return found


def check_order(names):
    bad = []
    for name in names:
        folder = folder_of(name)
        if folder is None or not name.endswith((".c", ".h")):
            continue
        if folder not in ORDER:
            bad.append(f"{name}: folder {folder} has no place in the order of folders")
            continue
        for number, line in enumerate(read(name).split("\n"), 1):
            m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
            if m is None or m.group(1) == "palimpsest.h":
                continue
            to = m.group(1).split("/")[0]
            if "/" not in m.group(1) or not os.path.exists(os.path.join(ROOT, "src", m.group(1))):
                bad.append(f'{name}:{number}: "{m.group(1)}" is not a path from src/')
            elif to not in ORDER or ORDER.index(to) > ORDER.index(folder):
                bad.append(f"{name}:{number}: {folder} must not depend on {to}")
    return bad


def check_modules(names):
    bad, have = [], set(names)
    for name in names:
        folder = folder_of(name)
        if folder is None or not name.endswith(".c") or folder in FILE_EACH:
            continue
        own = name[:-2] + ".h" in have
        if own and f'#include "{name[4:-2]}.h"' not in read(name):
            bad.append(f"{name}: does not include its own header")
        if not own and f'#include "{folder}/' not in read(name):
            bad.append(f"{name}: no header of its folder says what it is part of")
    return bad


def check_guards(names):
    bad = []
    for name in names:
        if folder_of(name) is None or not name.endswith(".h"):
            continue
        guard = "PAL_" + re.sub(r"\W", "_", name[4:]).upper()
        text = read(name)  # a template has none: it is meant to be included by several files
        if "#ifndef PAL_" in text and f"#ifndef {guard}\n#define {guard}\n" not in text:
            bad.append(f"{name}: its include guard should be {guard}")
    return bad


def check_mirror(names):
    bad, have = [], set(names)
    for name in names:
        if name.startswith("tests/unit/") and name.endswith(".c"):
            tested = "src/" + name[len("tests/unit/"):-2]
            if tested + ".c" not in have and tested + ".h" not in have:
                bad.append(f"{name}: there is no {tested}.c or .h")
    return bad


def check_calls(names):
    src = [n for n in names if n.startswith("src/") and n.endswith((".c", ".h"))]
    bad = grep([n for n in src if n != "src/base/mem.c"],
               r"(?<![\w.>])(?:malloc|calloc|realloc|strdup|strndup|asprintf|aligned_alloc|"
               r"posix_memalign)\s*\(", "memory comes from base/mem.h")
    bad += grep(src, r"(?<![\w.>])(?:atoi|atol|atof|strcpy|strcat|sprintf|gets|alloca)\s*\(",
                "unbounded or unchecked")
    path = [n for n in src if folder_of(n) in ("kernels", "memory", "model")]
    return bad + grep(path, LIBM, "contract C2 wants no libm in the numeric path")


def check_format(names):
    program = shutil.which("clang-format")
    if program is None:
        return None
    sources = [n for n in names if n.endswith((".c", ".h"))]
    if not sources:
        return []
    run = subprocess.run([program, "--dry-run", "-Werror", *sources], cwd=ROOT,
                         capture_output=True, text=True)
    if run.returncode == 0:
        return []
    return [line for line in run.stderr.split("\n") if "error:" in line] or [run.stderr]


def check_addresses(names):
    # In pieces, so that this file does not accuse itself.
    pattern = "|".join([
        r"(?<![\w.])/(?:ro" + r"ot|home|Users|work)/", r"(?:registry\.npm" + r"js|npm" + r"js\.com)",
        r"(?:py" + r"pi\.org|files\.pythonhosted)", r"deb\.deb" + r"ian\.org",
        r'"resol' + r'ved"\s*:\s*"https?:'])
    binary = (".gguf", ".png", ".npz", ".bin")
    folders = ("tests/fuzz/corpus/", "models/held.txt")  # what others wrote
    text = [n for n in names if not n.endswith(binary) and not n.startswith(folders)]
    return grep(text, pattern, "a machine's path or a registry's address", read)


def check_readmes(names):
    folders = {"/".join(n.split("/")[:2]) for n in names
               if n.startswith("tests/") and n.count("/") > 1}
    have = set(names)
    return [f"{d}: has no README.md" for d in sorted(folders) if d + "/README.md" not in have]


def check_links(names):
    bad = []
    for name in names:
        if not name.endswith(".md"):
            continue
        for m in re.finditer(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", read(name)):
            to = m.group(1)
            if "://" in to or to.startswith("mailto:"):
                continue
            if not os.path.exists(os.path.join(ROOT, os.path.dirname(name), to)):
                bad.append(f"{name}: the link to {to} leads nowhere")
    return bad


CHECKS = [
    ("folders depend one way", check_order),
    ("every .c has its header", check_modules),
    ("include guards follow the path", check_guards),
    ("unit tests mirror src", check_mirror),
    ("no call that a contract forbids", check_calls),
    ("formatted as .clang-format says", check_format),
    ("no machine's paths, no registry's addresses", check_addresses),
    ("every folder of tests has a README.md", check_readmes),
    ("links between documents lead somewhere", check_links),
]


def main():
    names, ok = tracked(), True
    print(f"1..{len(CHECKS)}")
    for number, (what, check) in enumerate(CHECKS, 1):
        bad = check(names)
        if bad is None:
            print(f"ok {number} - {what} # SKIP clang-format is not installed")
            continue
        print(f"{'not ok' if bad else 'ok'} {number} - {what}")
        for line in bad:
            print(f"# {line}")
        ok = ok and not bad
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
