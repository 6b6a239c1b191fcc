#!/bin/sh
# Makes the models from nothing: run.sh [WORK]. Needs apt-get, dpkg, a C++ compiler (for
# torch.compile; --eager does without) and network access to the Debian and PyPI archives.
# Writes WORK/palimpsest-5m.gguf, WORK/palimpsest-5m-hard.gguf and WORK/evaluation.jsonl; copy the
# models to models/ when they are better than the last. A step whose result is there is not done
# again, and one that was interrupted goes on from its last two minutes.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=${1:-$here/../.cache/training}
mkdir -p "$work"
work=$(cd "$work" && pwd)
python=$work/venv/bin/python
[ -x "$python" ] || python3 -m venv "$work/venv"
"$python" -c 'import torch, tokenizers, numpy' 2>/dev/null ||
	"$work/venv/bin/pip" install -q -r "$here/requirements.txt"

# Large blocks stay with the process, and threads that wait sleep: both matter much on few cores.
export MALLOC_MMAP_THRESHOLD_=8000000000 MALLOC_TRIM_THRESHOLD_=16000000000 MALLOC_ARENA_MAX=2
export OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 TORCHINDUCTOR_COMPILE_THREADS=1
export PYTHONDONTWRITEBYTECODE=1

# recall NAME OPTION...: one run of recall.py, whole.
recall() {
	name=$1
	shift
	[ ! -e "$work/$name.done" ] || return 0
	[ ! -s "$work/$name.state" ] || set -- "$@" --resume
	nice "$python" "$here/recall.py" "$work" --out "$name" "$@"
	touch "$work/$name.done"
}

[ -s "$work/docs.jsonl" ] || python3 "$here/corpus.py" "$work"
[ -s "$work/sizes.json" ] || "$python" "$here/tokens.py" "$work"
if [ ! -e "$work/model.done" ]; then
	nice "$python" "$here/train.py" "$work" --minutes 38
	touch "$work/model.done"
fi
recall main --from model --minutes 38
recall last --from main --favour quote --stage 3 --lr 0.35 --minutes 6
recall joined --from last --hard --favour hop --favour steps --stage 1 --minutes 50 --seed 9
recall hard --from joined --hard --favour hop --favour steps --stage 3 --lr 0.4 --minutes 8 \
	--seed 10
"$python" "$here/export.py" "$work" "$work/palimpsest-5m.gguf" --weights last
"$python" "$here/export.py" "$work" "$work/palimpsest-5m-hard.gguf" --weights hard
"$python" "$here/evaluate.py" "$work" last | tee "$work/evaluation.jsonl"
"$python" "$here/evaluate.py" "$work" hard --hard | tee -a "$work/evaluation.jsonl"
