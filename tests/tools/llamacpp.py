"""Where the peer is: llama.cpp behind ../shared/peer/peer.c, built by the setup.sh beside it."""
import json
import os
from pathlib import Path
import re
import shutil
import subprocess

SHARED = Path(__file__).resolve().parents[3] / "shared"
PACKAGE = Path("node_modules/@node-llama-cpp/linux-x64")
LIBRARIES = PACKAGE / "bins/linux-x64"


def find_peer(given):
    """The llama.cpp driver: given, built before, or built now with npm; None and a reason."""
    built = Path(os.environ.get("PAL_PEER_DIR", Path.home() / ".cache" / "peer"))
    if given:
        return given, ""
    if (built / "peer").exists():
        return str(built / "peer"), ""
    setup = SHARED / "peer" / "setup.sh"
    if not setup.exists():
        return None, "no llama.cpp: there is no ../shared/peer"
    if not shutil.which("npm"):
        return None, "no llama.cpp: npm is not installed"
    done = subprocess.run([str(setup), str(built)], capture_output=True, text=True, check=False)
    if done.returncode:
        return None, "no llama.cpp: setup.sh failed: " + done.stderr.strip()[-200:].replace("\n", " ")
    return str(built / "peer"), ""


def with_only(peer, variant, folder):
    """The driver built in folder with one of the CPU libraries alone, "haswell" for AVX2,
    since the library takes the best that it finds; None and a reason."""
    have, libraries = Path(peer).resolve().parent / LIBRARIES, Path(folder) / LIBRARIES
    wanted, setup = f"libggml-cpu-{variant}.so", SHARED / "peer" / "setup.sh"
    if not (have / wanted).exists() or not setup.exists():
        return None, f"{peer} was not built by ../shared/peer/setup.sh with {wanted}"
    libraries.mkdir(parents=True, exist_ok=True)
    package = Path(folder) / PACKAGE / "package.json"
    for path in (*libraries.iterdir(), package):
        path.unlink(missing_ok=True)
    package.symlink_to(Path(peer).resolve().parent / PACKAGE / "package.json")
    for path in have.iterdir():
        if path.name == wanted or not path.name.startswith("libggml-cpu-"):
            (libraries / path.name).symlink_to(path)
    (Path(folder) / "package.json").write_text("{}\n", encoding="utf-8")
    done = subprocess.run([str(setup), str(folder)], capture_output=True, text=True, check=False)
    if done.returncode:
        return None, "setup.sh failed: " + done.stderr.strip()[-200:].replace("\n", " ")
    return str(Path(folder) / "peer"), ""


def describe(peer, model):
    """The driver's release, npm package and CPU library, as far as they can be told."""
    def field(path, *keys):
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
            for key in keys:
                value = value[key]
            return value
        except (OSError, ValueError, KeyError, TypeError):
            return None

    done = subprocess.run([peer, "tokenize", model], stdin=subprocess.DEVNULL, text=True,
                          errors="replace", capture_output=True, check=False,
                          env={**os.environ, "PEER_VERBOSE": "1"})
    library = re.search(r"loaded CPU backend from (?:.*/)?(\S+)", done.stderr)
    folder = Path(peer).parent
    return {"engine": "llama.cpp",
            "release": field(folder / LIBRARIES / "_nlcBuildMetadata.json", "buildOptions",
                             "llamaCpp", "release"),
            "package": field(folder / PACKAGE / "package.json", "version"),
            "library": library.group(1) if library else None}
