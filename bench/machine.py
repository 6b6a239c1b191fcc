"""The machine that is measured on: what it is, and how quiet it was during a run."""
import os
from pathlib import Path
import platform
import pty
import re
import select
import shlex
import signal
import statistics
import subprocess
import tempfile
import threading
import time

FLAGS = ("avx2", "fma", "f16c", "avx_vnni", "avx512f", "avx512bw", "avx512vl", "avx512_vnni",
         "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "asimd", "asimddp", "i8mm",
         "sve", "hypervisor")
QUIET_LOAD = 0.5    # processes that wanted to run before the first run
QUIET_SHARE = 0.03  # of the CPU time that went elsewhere during a run
TICKS = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A program did not do what was asked; the text says which and why."""


def read(path):
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def describe():
    info = read("/proc/cpuinfo")
    model = re.search(r"(?m)^model name\s*:\s*(.+)$", info)
    have = re.search(r"(?m)^(?:flags|Features)\s*:\s*(.+)$", info)
    have = set(have.group(1).split()) if have else set()
    memory = re.search(r"MemTotal:\s+(\d+)", read("/proc/meminfo"))
    cache = Path("/sys/devices/system/cpu/cpu0/cache")
    return {"cpu": model.group(1).strip() if model else platform.machine(),
            "arch": platform.machine(), "cores": len(os.sched_getaffinity(0)),
            "flags": [f for f in FLAGS if f in have],
            "memory_bytes": int(memory.group(1)) * 1024 if memory else None,
            "caches": {f"L{read(c / 'level').strip()} {read(c / 'type').strip()}":
                       read(c / "size").strip() for c in sorted(cache.glob("index*"))},
            "kernel": platform.release(),
            "huge_pages": read("/sys/kernel/mm/transparent_hugepage/enabled").strip()}


def label(machine):
    """A name for files: what the machine is, and not whose."""
    words = re.sub(r"\([^)]*\)|@.*", "", machine["cpu"]).lower()
    return re.sub(r"[^a-z0-9]+", "-", f"{words} {machine['cores']} cores").strip("-")


def _stat():
    """(busy, stolen) CPU seconds of all cores since the start of the system."""
    t = [int(x) / TICKS for x in read("/proc/stat").split("\n", 1)[0].split()[1:9]]
    if len(t) < 8:
        return 0.0, 0.0
    return t[0] + t[1] + t[2] + t[5] + t[6], t[7]


def _cpu_of(pids):
    """CPU seconds of processes so far."""
    total = 0.0
    for pid in pids:
        fields = read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        total += sum(int(x) / TICKS for x in fields[11:13])
    return total


class Around:
    """What is around a run, from now on: the load average before, then the shares of the CPU time
    that other processes took and that the hypervisor gave to others, wall seconds, and the peak
    of the run's memory. beside: processes that belong to the run."""

    def __init__(self, beside=()):
        self.beside, self.load = beside, os.getloadavg()[0]
        self.start, self.stat, self.cpu = time.monotonic(), _stat(), _cpu_of(beside)

    def end(self, used):
        """used: the resources that the run used, by wait4."""
        wall = time.monotonic() - self.start
        busy, stolen = (now - then for now, then in zip(_stat(), self.stat))
        cores = wall * (os.cpu_count() or 1)
        others = busy - used.ru_utime - used.ru_stime - (_cpu_of(self.beside) - self.cpu)
        return {"load_average": round(self.load, 2),
                "others_share": round(max(0.0, others / cores), 4),
                "stolen_share": round(max(0.0, stolen / cores), 4),
                "wall_s": round(wall, 3), "max_rss_bytes": used.ru_maxrss * 1024}


def _start(command, **how):
    try:
        return subprocess.Popen(command, start_new_session=True, **how)
    except OSError as e:
        raise Failed(f"{command[0]}: {e.strerror}") from e


def _failed(command, code, err):
    err.seek(0)
    return Failed(f"{' '.join(command)}: exit status {code}: "
                  + err.read().decode(errors="replace").strip()[-600:])


def run(command, timeout, beside=()):
    """Standard output of a program, and what was around it."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        around = Around(beside)
        child = _start(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        clock = threading.Timer(timeout, os.killpg, (child.pid, signal.SIGTERM))
        clock.start()
        try:
            _, status, used = os.wait4(child.pid, 0)
        except BaseException:
            os.killpg(child.pid, signal.SIGTERM)
            raise
        finally:
            clock.cancel()
        child.returncode = os.waitstatus_to_exitcode(status)
        around = around.end(used)
        if child.returncode:
            raise _failed(command, child.returncode, err)
        out.seek(0)
        return out.read().decode(errors="replace"), around


def _line_times(fd, end):
    """When each line came, until the other side is closed or time is up: (times, which)."""
    times = []
    while (left := end - time.monotonic()) > 0:
        if not select.select([fd], [], [], left)[0]:
            continue
        try:
            got = os.read(fd, 65536)
        except OSError:  # a terminal whose last writer is gone
            got = b""
        if not got:
            return times, True
        times += [time.monotonic()] * got.count(b"\n")
    return times, False


def run_lines(command, text, limit, beside=()):
    """When each line of a program came that is given a text and stopped after `limit` seconds;
    when that was; whether it finished before; what was around it."""
    reader, writer = pty.openpty()  # so that a line is written when it is complete
    with open(reader, "rb", buffering=0), tempfile.TemporaryFile() as given, \
            tempfile.TemporaryFile() as err:
        given.write(text.encode())
        given.seek(0)
        around = Around(beside)
        try:
            child = _start(command, stdin=given, stdout=writer, stderr=err)
        finally:
            os.close(writer)
        finished = False
        try:
            times, finished = _line_times(reader, time.monotonic() + limit)
            end = time.monotonic()
        finally:
            if not finished:
                os.killpg(child.pid, signal.SIGKILL)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        if finished and child.returncode:
            raise _failed(command, child.returncode, err)
        return times, end, finished, around.end(used)


def public(command):
    """A command without the folders of this machine."""
    return shlex.join(os.path.basename(word) for word in command)


def spread(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values),
            "values": values}


def disturbed(around):
    return max(around["others_share"], around["stolen_share"]) > QUIET_SHARE


def noise(runs, threads):
    """Sentences about a machine that was not quiet; runs: what was around them, in order."""
    found = []
    if runs and runs[0]["load_average"] > QUIET_LOAD:
        found.append(f"the load average was {runs[0]['load_average']} before the first run")
    # Later the load is that of the runs before, too.
    loads = [r["load_average"] for r in runs[1:] if r["load_average"] > threads + QUIET_LOAD]
    if loads:
        found.append(f"the load average was up to {max(loads)} before {len(loads)} later runs")
    for key, who in (("others_share", "other processes took"), ("stolen_share", "the host kept")):
        bad = [r[key] for r in runs if r[key] > QUIET_SHARE]
        if bad:
            found.append(f"{who} up to {max(bad):.0%} of the CPU time in {len(bad)} of "
                         f"{len(runs)} runs")
    return found
