#!/usr/bin/env python3
"""Sums up test runs: what failed, what did not run and why, then "N passed, N failed".

summary.py [--steps FILE] BUILD...

BUILD: build directories in which `meson test` ran; every TAP line counts as one test, a
test without TAP as one. FILE: lines "pass NAME", "fail NAME" or "skip NAME: REASON" for steps that are
no Meson tests (such as a build that must be free of warnings). Exit status 1 if anything failed, or
if nothing ran at all.
"""
import argparse
import json
import os
import re
import sys

MAX_WHY = 20  # lines
TAP = re.compile(r"^(ok|not ok)\b\s*(\d*)\s*(?:-\s*)?(.*)$")


def tap_counts(text):
    """Passed, failed names and skipped (name, reason) of one program's TAP output."""
    passed, failed, skipped = 0, [], []
    if not re.search(r"^1\.\.\d+", text, re.M):
        return passed, failed, skipped  # no plan: not TAP
    why = 0  # lines of explanation that may still be added to the last failure
    for line in text.splitlines():
        m = TAP.match(line)
        if m is None:
            if why and line.startswith("#"):
                failed[-1] += "\n    " + line
                why -= 1
            continue
        why = 0
        name, _, directive = m.group(3).partition("#")
        directive = directive.strip()
        if directive.upper().startswith("SKIP"):
            # cmocka writes the test's name where others write the reason.
            skipped.append((name.strip() or m.group(2), directive[4:].strip(" :")))
        elif m.group(1) == "ok":
            passed += 1
        else:
            failed.append(name.strip() or m.group(2))
            why = MAX_WHY
    return passed, failed, skipped


def last_line(entry):
    lines = ((entry.get("stdout") or "") + "\n" + (entry.get("stderr") or "")).split("\n")
    lines = [line.strip() for line in lines if line.strip()]
    return lines[-1] if lines else "no reason given"


def skip_all_reason(text):
    m = re.search(r"^1\.\.0\s*#\s*SKIP\s*(.*)$", text, re.M | re.I)
    return m.group(1) if m else None


def count(entry):
    """As tap_counts, for one entry of testlog.json; skipped: (program, test, reason)."""
    text, result, name = entry.get("stdout") or "", entry["result"], entry["name"]
    passed, failed, skipped = tap_counts(text)
    failed = [f"{name}: {sub}" for sub in failed]
    skipped = [(name, sub, reason) for sub, reason in skipped]
    if result == "SKIP" and not skipped:
        skipped = [(name, "", skip_all_reason(text) or last_line(entry))]
    elif result in ("OK", "EXPECTEDFAIL"):
        passed = passed or (0 if skipped else 1)
    elif result != "SKIP" and not failed:
        # A crash, a time-out, a sanitizer's report, or TAP that does not add up.
        failed = [f"{name} ({result}, exit status {entry['returncode']})"]
    return passed, failed, skipped


def report_skipped(skipped):
    """One line for all tests of a program that did not run for the same reason."""
    groups = {}
    for program, test, why in skipped:
        groups.setdefault((program, why), []).append(test)
    for (program, why), tests in groups.items():
        what = tests[0] if len(tests) == 1 else f"{len(tests)} tests, {tests[0]} first"
        print("not run: " + ": ".join(part for part in (program, what, why) if part))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps")
    parser.add_argument("builds", nargs="*")
    args = parser.parse_args()
    passed, failed, skipped = 0, [], []
    for build in args.builds:
        path = os.path.join(build, "meson-logs", "testlog.json")
        if not os.path.exists(path):
            failed.append(f"{build}: no tests ran")
            continue
        with open(path, encoding="utf-8") as f:
            for line in f:
                p, bad, not_run = count(json.loads(line))
                passed += p
                failed += [f"{build}: {name}" for name in bad]
                skipped += [(f"{build}: {name}", test, why) for name, test, why in not_run]
    if args.steps:
        with open(args.steps, encoding="utf-8") as f:
            for line in f:
                verdict, name = line.rstrip("\n").split(" ", 1)
                if verdict == "pass":
                    passed += 1
                elif verdict == "skip":
                    what, why = name.split(": ", 1)
                    skipped.append((what, "", why))
                else:
                    failed.append(name)
    report_skipped(skipped)
    for name in failed:
        print(f"FAILED: {name}")
    if skipped:
        print(f"({len(skipped)} not run, for the reasons above)")
    print(f"{passed} passed, {len(failed)} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
