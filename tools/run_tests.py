#!/usr/bin/env python3
"""Runs everything that must pass, piece by piece; the last line reads "N passed, N failed".

A piece is a function of this file that returns a Tally. What counts as one test: a case of a cmocka program, any other
Meson test, a fuzz target, or a step such as the formatting check. A piece that cannot run counts as one failure.
Output goes to build/test-logs/PIECE.log; of a failing piece the end is printed.
"""

import argparse
import concurrent.futures
import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD, ASAN, TSAN, FUZZ = ROOT / "build", ROOT / "build-asan", ROOT / "build-tsan", ROOT / "build-fuzz"
LOGS = BUILD / "test-logs"
MODELS = ("smollm2", "gemma3-270m")
SANITIZE = ["-Db_sanitize=address,undefined", "-Dbuildtype=debugoptimized", "-Db_lundef=false"]
# An error that a sanitizer only prints would pass unseen. The fake stack of detect_stack_use_after_return misaligns
# 64-byte vectors (GCC bug 110027) and is on by default in some releases.
SANITIZER_ENV = {
    "ASAN_OPTIONS": "halt_on_error=1:abort_on_error=1:detect_stack_use_after_return=0",
    "UBSAN_OPTIONS": "halt_on_error=1:abort_on_error=1:print_stacktrace=1",
    "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
}
# The model suite takes hours under the sanitizers; the same code runs there on the tiny models.
ASAN_SUITES = ["--no-suite", "model", "--no-suite", "install", "--no-suite", "mutations",
               "--no-suite", "techniques"]
# Where several threads meet: workers, the engine on two of them, the service, both ways into it.
TSAN_TESTS = ["base", "requests", "thousand", "service", "service_time", "jobs", "api", "api_misuse", "examples",
              "server_http", "server_api", "cli_run_llama", "cli_input_llama"]


@dataclass
class Tally:
    passed: int = 0
    failed: int = 0
    skipped: list = field(default_factory=list)  # names, with the reason where one is known
    notes: list = field(default_factory=list)  # lines to print below the piece

    def add(self, other):
        self.passed += other.passed
        self.failed += other.failed
        self.skipped += other.skipped


class PieceFailed(Exception):
    """The piece cannot go on; the message says why, the log has the rest."""


def shell(log, command, env=None):
    """Runs a command with its output appended to the open file log; its exit status."""
    log.write(f"$ {' '.join(map(str, command))}\n")
    log.flush()
    return subprocess.run(command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                          env={**os.environ, **(env or {})}).returncode


def must(log, command, why, env=None):
    if shell(log, command, env) != 0:
        raise PieceFailed(why)


def step(log, command):
    """A command that is one test."""
    return Tally(passed=1) if shell(log, command) == 0 else Tally(failed=1)


def configure(log, folder, settings, env=None):
    command = ["meson", "configure"] if (folder / "build.ninja").exists() else ["meson", "setup"]
    must(log, [*command, folder, *settings], f"meson cannot configure {folder.name}/", env)


def build(log, folder, targets=()):
    must(log, ["ninja", "-C", folder, *targets], f"{folder.name}/ does not build")


def count_cases(output):
    """Passed, failed, and the names of skipped cases: counted as cmocka does, skipped ones also as unittest names them,
    and the kernels that tests/kernel finds beyond this CPU."""
    passed, failed = (sum(map(int, re.findall(rf"^\[  {word}  \] (\d+) test\(s\)", output, re.M)))
                      for word in ("PASSED", "FAILED"))
    skipped = list(dict.fromkeys(re.findall(r"^\[  SKIPPED \] (\w+)$", output, re.M)))  # cmocka names each twice
    skipped += re.findall(r"^(\w+) \(.*\).* \.\.\. skipped ", output, re.M)
    for equal, beyond in re.findall(r"^(\d+) kernels .*?(\d+) beyond this CPU", output, re.M):
        passed += int(equal)
        skipped += ["a kernel beyond this CPU"] * int(beyond)
    return passed, failed, skipped


def count_test(record):
    """Tally of one line of Meson's testlog.json: its cases where the output counts them, else itself."""
    name, result = record["name"], record["result"]
    output = record.get("stdout", "") + record.get("stderr", "")
    if result == "SKIP":
        reason = output.strip().splitlines()
        return Tally(skipped=[f"{name}: {reason[-1] if reason else 'no reason given'}"])
    passed, failed, skipped = count_cases(output)
    tally = Tally(passed, failed, [f"{name}: {case}" for case in skipped])
    tally.notes = [f"{name}: levels {levels}" for levels in re.findall(r"^levels: (.*)", output, re.M)]
    if result not in ("OK", "EXPECTEDFAIL"):
        tally.failed = max(tally.failed, 1)
        tally.notes += [f"FAILED {name} ({result.lower()})"]
    elif tally.passed == 0 and not tally.skipped:
        tally.passed = 1
    return tally


def meson_test(log, folder, arguments, env=None):
    """Runs Meson's tests of a build; their tally."""
    record_file = folder / "meson-logs" / "testlog.json"
    record_file.unlink(missing_ok=True)
    status = shell(log, ["meson", "test", "-C", folder, "--no-rebuild", "--print-errorlogs", *arguments], env)
    if not record_file.exists():
        raise PieceFailed("meson test ran no test")
    tally = Tally()
    for line in record_file.read_text().splitlines():
        one = count_test(json.loads(line))
        tally.add(one)
        tally.notes += one.notes
    if status != 0 and tally.failed == 0:
        raise PieceFailed(f"meson test ended with status {status}, though no test says that it failed")
    return tally


def piece_includes(log, options):
    tally = step(log, [sys.executable, "tools/check_includes.py", "--self-test"])
    tally.add(step(log, [sys.executable, "tools/check_includes.py"]))
    return tally


def piece_format(log, options):
    return step(log, [sys.executable, "tools/format.py"])


def piece_build(log, options):
    configure(log, BUILD, ["-Dtests=true", "-Dwerror=true", "-Dbuildtype=release", "-Db_sanitize=none"])
    build(log, BUILD)
    return Tally(passed=1)


def piece_models(log, options):
    tally = Tally()
    for name in MODELS:
        one = step(log, [BUILD / "sluice", "pull", name])
        if one.failed:
            one.notes.append(f"FAILED cannot pull {name} (from PyPI; see the log)")
        tally.add(one)
        tally.notes += one.notes
    return tally


def piece_client(log, options):
    return step(log, [sys.executable, "tools/openai_client.py"])


def piece_release(log, options):
    return meson_test(log, BUILD, [] if options.long else ["--no-suite", "long"])


def piece_install(log, options):
    return step(log, ["tests/install/check.sh"])


def piece_asan(log, options):
    configure(log, ASAN, ["-Dtests=true", "-Dwerror=true", *SANITIZE], {"CC": "gcc"})
    build(log, ASAN)
    return meson_test(log, ASAN, ["--timeout-multiplier", "5", "--no-suite", "long", *ASAN_SUITES], SANITIZER_ENV)


def piece_tsan(log, options):
    configure(log, TSAN, ["-Dtests=true", "-Dwerror=true", "-Db_sanitize=thread", "-Dbuildtype=debugoptimized",
                          "-Db_lundef=false"], {"CC": "gcc"})
    build(log, TSAN)
    return meson_test(log, TSAN, ["--timeout-multiplier", "5", *TSAN_TESTS], SANITIZER_ENV)


def fuzz_one(target, seconds):
    """Runs one fuzz target from its seeds; its name, tally and figures."""
    name = target.stem
    corpus, crashes = FUZZ / "corpus" / name, FUZZ / "crashes"
    with open(LOGS / f"{name}.log", "w") as log:
        status = shell(log, [FUZZ / "tests" / "fuzz" / name, f"-max_total_time={seconds}", "-timeout=10",
                             "-rss_limit_mb=2048", "-print_final_stats=1", f"-artifact_prefix={crashes}/{name}-",
                             corpus], SANITIZER_ENV)
    output = (LOGS / f"{name}.log").read_text(errors="replace")
    runs = re.search(r"stat::number_of_executed_units:\s*(\d+)", output)
    coverage = re.findall(r"\bcov: (\d+)", output)
    if status != 0 or not runs or int(runs.group(1)) == 0:
        found = re.findall(r"^(SUMMARY: .*|==\d+==ERROR: .*|.*Test unit written to .*)$", output, re.M)
        return Tally(failed=1, notes=[f"FAILED {name}: see build/test-logs/{name}.log", *found])
    return Tally(passed=1, notes=[f"{name}: {int(runs.group(1)):,} inputs, {coverage[-1] if coverage else '?'} edges, "
                                  f"corpus of {sum(1 for _ in corpus.iterdir())}"])


def piece_fuzz(log, options):
    targets = sorted((ROOT / "tests" / "fuzz").glob("fuzz_*.c"))
    if not targets:
        raise PieceFailed("tests/fuzz holds no target")
    configure(log, FUZZ, ["-Dfuzz=true", "-Dtests=false", *SANITIZE], {"CC": "clang"})
    seeders = [target.stem.replace("fuzz_", "seeds_", 1) for target in targets]
    build(log, FUZZ, [f"tests/fuzz/{name}" for name in [target.stem for target in targets] + seeders])
    (FUZZ / "crashes").mkdir(exist_ok=True)
    for target, seeder in zip(targets, seeders):
        corpus = FUZZ / "corpus" / target.stem
        corpus.mkdir(parents=True, exist_ok=True)
        must(log, [FUZZ / "tests" / "fuzz" / seeder, corpus], f"{seeder} cannot write its seeds")
    tally = Tally()
    with concurrent.futures.ThreadPoolExecutor(max_workers=max(1, len(os.sched_getaffinity(0)))) as pool:
        for one in pool.map(lambda target: fuzz_one(target, options.fuzz_seconds), targets):
            tally.add(one)
            tally.notes += one.notes
    return tally


PIECES = {name: globals()["piece_" + name]
          for name in ("includes", "format", "build", "models", "client", "release", "install", "asan", "tsan", "fuzz")}
LONG_PIECES = {"tsan"}  # left out unless --long or --only asks for them
# A piece that needs another one's result is run after it even when --only names it alone.
NEEDS = {"models": ["build"], "release": ["build", "models", "client"], "asan": ["client"], "tsan": ["client"], "install": ["build"]}


def run_piece(name, options):
    """Runs one piece, prints its line, and the end of its log if it failed."""
    started = time.monotonic()
    path = LOGS / f"{name}.log"
    with open(path, "w") as log:
        try:
            tally = PIECES[name](log, options)
        except PieceFailed as problem:
            tally = Tally(failed=1, notes=[f"FAILED {problem}"])
    counts = f"{tally.passed} passed, {tally.failed} failed"
    if tally.skipped:
        counts += f", {len(tally.skipped)} skipped"
    print(f"{name:10} {counts:40} {time.monotonic() - started:6.1f} s", flush=True)
    for note in tally.notes:
        print(f"           {note}")
    if tally.failed:
        lines = path.read_text(errors="replace").splitlines()
        print(*[f"  | {line}" for line in lines[-60:]], f"  whole log: {path.relative_to(ROOT)}", sep="\n", flush=True)
    return tally


def main():
    parser = argparse.ArgumentParser(description="run everything that must pass")
    parser.add_argument("--only", metavar="PIECE", action="append", choices=PIECES, help="run this piece, and those it needs")
    parser.add_argument("--list", action="store_true", help="name the pieces and end")
    parser.add_argument("--long", action="store_true", help="with Meson's suite `long` and the thread sanitizer")
    parser.add_argument("--fuzz-seconds", type=int, default=15, help="for each fuzz target (default 15)")
    options = parser.parse_args()
    if options.list:
        print(*PIECES, sep="\n")
        return 0
    chosen = set(options.only or (PIECES if options.long else PIECES.keys() - LONG_PIECES))
    for name in list(chosen):
        chosen |= set(NEEDS.get(name, []))
    LOGS.mkdir(parents=True, exist_ok=True)
    os.environ["XDG_CACHE_HOME"] = str(BUILD / "test-cache")  # nothing a test runs writes into the user's
    started = time.monotonic()
    total = Tally()
    for name in PIECES:
        if name in chosen:
            total.add(run_piece(name, options))
    for name in total.skipped:
        print(f"skipped    {name}")
    print(f"total      {time.monotonic() - started:.0f} s")
    print(f"{total.passed} passed, {total.failed} failed")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
