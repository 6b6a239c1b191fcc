#!/bin/sh
# Makes the model from nothing: run.sh [WORK [MINUTES]]. Needs apt-get, dpkg, a C++ compiler
# (for torch.compile; train.py --eager does without) and network access to the Debian and PyPI
# archives. Writes WORK/palimpsest-5m.gguf; copy it to models/ when it is better than the last.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-$here/../.cache/training}
minutes=${2:-38}
mkdir -p "$work"
[ -x "$work/venv/bin/python" ] || python3 -m venv "$work/venv"
"$work/venv/bin/python" -c 'import torch, tokenizers, numpy' 2>/dev/null ||
	"$work/venv/bin/pip" install -q -r "$here/requirements.txt"

# Large blocks stay with the process, and threads that wait sleep: both matter much on few cores.
export MALLOC_MMAP_THRESHOLD_=8000000000 MALLOC_TRIM_THRESHOLD_=16000000000 MALLOC_ARENA_MAX=2
export OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 TORCHINDUCTOR_COMPILE_THREADS=1
export PYTHONDONTWRITEBYTECODE=1

[ -s "$work/docs.jsonl" ] || python3 "$here/corpus.py" "$work"
[ -s "$work/sizes.json" ] || "$work/venv/bin/python" "$here/tokens.py" "$work"
nice -n 15 "$work/venv/bin/python" "$here/train.py" "$work" --minutes "$minutes"
"$work/venv/bin/python" "$here/export.py" "$work" "$work/palimpsest-5m.gguf"
