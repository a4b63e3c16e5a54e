#!/usr/bin/env python3
"""Measures how long `sluice run` takes from its start to the first byte of its answer, and its peak resident set.

    bench/start.py MODEL.gguf...

The first start finds an empty cache in a temporary folder, later ones what it left; medians. "limit" is what the peak
may be: 1.1 x the model file + keys and values + 100 MB.
"""

import argparse
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

PROGRAM = Path(__file__).resolve().parent.parent / "build" / "sluice"
CONTEXT = 4096  # what `run` takes unless told


def start_once(model, cache, extra):
    """Milliseconds to the first byte, CPU milliseconds of the whole process, and its peak resident set in MB."""
    command = [PROGRAM, "run", "-m", model, "-p", "Hi", "-n", "1", *extra]
    began = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             env={**os.environ, "XDG_CACHE_HOME": cache})
    if not child.stdout.read(1):
        raise SystemExit(f"{model}: no answer")
    first = time.monotonic() - began
    child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise SystemExit(f"{model}: exit code {child.returncode}")
    return first * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3, usage.ru_maxrss * 1024 / 1e6


def limit_mb(model):
    info = json.loads(subprocess.run([PROGRAM, "info", model, "--length", str(CONTEXT), "--json"], check=True,
                                     capture_output=True).stdout)
    return 1.1 * info["weight_bytes"] / 1e6 + info["memory"]["kv_bytes"] / 1e6 + 100


def main():
    parser = argparse.ArgumentParser(description="time from start to first token")
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("-r", "--repetitions", type=int, default=9, help="later starts (default 9)")
    options = parser.parse_args()
    print(f"{'model':28} {'start':10} {'first byte':>11} {'best':>9} {'CPU time':>9} {'peak':>9} {'limit':>9}")
    for model in options.models:
        with tempfile.TemporaryDirectory() as cache:
            rows = {"first": [start_once(model, cache, [])],
                    "later": [start_once(model, cache, []) for _ in range(options.repetitions)],
                    "no cache": [start_once(model, cache, ["--no-cache"]) for _ in range(3)]}
        limit = limit_mb(model)
        for name, measured in rows.items():
            first, cpu, peak = (statistics.median(column) for column in zip(*measured))
            best = min(row[0] for row in measured)
            print(f"{Path(model).stem:28} {name:10} {first:8.0f} ms {best:6.0f} ms {cpu:6.0f} ms {peak:6.0f} MB "
                  f"{limit:6.0f} MB", flush=True)


if __name__ == "__main__":
    main()
