#!/usr/bin/env python3
"""The page's files as a table in C, and the chart library among them.

embed.py --fetch           prints where uPlot's package is, fetched with npm if it is not there yet
embed.py OUT.c FILE...     writes the table; a .tgz is uPlot's package
"""
import hashlib
import os
from pathlib import Path
import subprocess
import sys
import tarfile
import tempfile

VERSION = "1.6.32"
SHA512 = ("2883159c6ebccefbb95d751b0b82d010f9e1c0ec41b8bc96d401eda66e882935"
          "c89a46cb824332fa369b8cb8122cc6ac36e186cd09bf7a9ded3a4c93c6989023")
PARTS = {"dist/uPlot.esm.js": "uPlot.esm.js", "dist/uPlot.min.css": "uPlot.min.css",
         "LICENSE": "uPlot.LICENSE.txt"}
TYPES = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8",
         ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
         ".txt": "text/plain; charset=utf-8"}


def good(path):
    return path.exists() and hashlib.sha512(path.read_bytes()).hexdigest() == SHA512


def fetch():
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "palimpsest-page"
    package = cache / f"uplot-{VERSION}.tgz"
    if not good(package):
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache) as folder:
            subprocess.run(["npm", "pack", f"uplot@{VERSION}", "--silent"], cwd=folder, check=True,
                           stdout=subprocess.DEVNULL, timeout=120)
            got = Path(folder) / package.name
            if not good(got):
                sys.exit(f"uplot {VERSION} from npm is not what was pinned")
            got.replace(package)
    print(package)


def read(paths):
    """{address: bytes}: index.html, or absent.html for it, is the page itself."""
    files = {}
    for path in map(Path, paths):
        if path.suffix == ".tgz":
            with tarfile.open(path) as package:
                for part, name in PARTS.items():
                    files[f"/page/{name}"] = package.extractfile(f"package/{part}").read()
        else:
            files["/" if path.suffix == ".html" else f"/page/{path.name}"] = path.read_bytes()
    return files


def table(files):
    lines = ['#include "serve/page.h"', ""]
    rows = []
    for i, (address, data) in enumerate(sorted(files.items())):
        lines.append(f"static const unsigned char file_{i}[] = {{")
        lines += [",".join(map(str, data[k:k + 32])) + "," for k in range(0, len(data), 32)]
        lines.append("};")
        kind = TYPES[Path(address).suffix or ".html"]
        tag = hashlib.sha256(data).hexdigest()[:24]
        rows.append(f'\t{{"{address}", "{kind}", "\\"{tag}\\"", file_{i}, {len(data)}}},')
    return "\n".join([*lines, "const pal__page_file pal__page_files[] = {", *rows, "\t{0}", "};", ""])


if __name__ == "__main__":
    if sys.argv[1:] == ["--fetch"]:
        try:
            fetch()
        except (OSError, subprocess.SubprocessError) as error:
            sys.exit(f"uplot {VERSION} cannot be fetched: {error}")
    else:
        Path(sys.argv[1]).write_text(table(read(sys.argv[2:])), encoding="utf-8")
