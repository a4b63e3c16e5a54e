#!/usr/bin/env python3
"""What a fast level's arithmetic costs in accuracy, for sluice and for llama.cpp, on the same file and the same text.

For each quantized model the weights stay as they are; what differs is how a program computes with them. Ours: the mean
Kullback-Leibler divergence of a level from `exact` (`sluice eval ppl --against exact`). Theirs: that of llama.cpp from
llama.cpp with the same file's weights dequantized to float32, F32 keys and values (llama-quantize to F32,
llama-perplexity --kl-divergence-base, then --kl-divergence). Both cut the text into the same windows and score the
second half of each.

    tools/compare_kld.py model-q4_0.gguf model-q3_k.gguf --llama DIR --tokens 8192 \\
        --text tests/golden/text/english.txt tests/golden/text/code.txt

DIR holds llama-quantize and llama-perplexity with their libraries. The last column is ours / theirs; the exit status is
1 when one is above --limit. llama.cpp keeps the base's log-probabilities in 16 bits, so that its figures below about
1e-6 mean little; F32 and F16 files, which it computes almost exactly, are best compared by our figure alone.
"""
import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path


def output_of(command, env=None):
    """Standard output and error of a command that must succeed."""
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, errors="replace", env=env)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: status {done.returncode}\n{(done.stdout + done.stderr)[-2000:]}")
    return done.stdout + done.stderr


def ours(options, model, text):
    command = [options.sluice, "eval", "ppl", "-m", model, "-f", text, "--ctx", options.ctx, "--limit-tokens",
               options.tokens, "--against", "exact", "--json", "--threads", options.threads]
    if options.level:
        command += ["--level", options.level]
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}: {done.stderr.strip()}")
    return json.loads(done.stdout)


def value(text, name):
    found = re.search(rf"{re.escape(name)}\s*:\s*(-?[\d.]+(?:e[-+]?\d+)?)", text)
    if not found:
        raise SystemExit(f"llama-perplexity printed no '{name}':\n{text[-2000:]}")
    return float(found.group(1))


def theirs(options, model, floats, text, work):
    """Mean KLD, and perplexity of the quantized and of the float32 computation."""
    env = dict(os.environ, LD_LIBRARY_PATH=str(options.llama))
    base = work / "base.kld"
    # --no-escape: else the two characters of a \\n in the text would become one.
    perplexity = [options.llama / "llama-perplexity", "-f", text, "--no-escape", "-c", options.ctx, "--chunks",
                  options.tokens // options.ctx, "-t", options.threads, "--kl-divergence-base", base]
    output_of([*perplexity, "-m", floats, "-ctk", "f32", "-ctv", "f32"], env)
    printed = output_of([*perplexity, "-m", model, "--kl-divergence"], env)
    base.unlink()
    return value(printed, "Mean    KLD"), value(printed, "Mean PPL(Q)"), value(printed, "Mean PPL(base)")


def rows_of(options, model):
    """One row for each text."""
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        floats = Path(work) / "float32.gguf"
        output_of([options.llama / "llama-quantize", "--allow-requantize", model, floats, "F32", options.threads],
                  dict(os.environ, LD_LIBRARY_PATH=str(options.llama)))
        for text in options.text:
            mine, (kld, ppl, ppl_base) = ours(options, model, text), theirs(options, model, floats, text, Path(work))
            yield {"model": model.name, "text": text.name, "kld_ours": mine["kld_mean"], "kld_theirs": kld,
                   "ratio": mine["kld_mean"] / kld, "ppl_ours": mine["ppl"], "ppl_exact": mine["ppl_base"],
                   "ppl_theirs": ppl, "ppl_float32": ppl_base}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", type=Path, help="quantized GGUF files")
    parser.add_argument("--llama", required=True, type=Path, help="folder with llama.cpp's programs and libraries")
    parser.add_argument("--sluice", type=Path, default=Path(__file__).resolve().parent.parent / "build/sluice")
    parser.add_argument("--text", required=True, type=Path, nargs="+", help="texts to score")
    parser.add_argument("--tokens", type=int, default=8192, help="only the first N tokens (default %(default)s)")
    parser.add_argument("--ctx", type=int, default=512, help="tokens of a window (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--level", help="sluice's level (default: the best)")
    parser.add_argument("--limit", type=float, default=1.1, help="largest ratio that passes (default %(default)s)")
    parser.add_argument("--work", type=Path, help="folder for the float32 model and the base's logits (default: "
                        "a temporary one)")
    parser.add_argument("--json", action="store_true", help="one JSON object a line instead of the table")
    options = parser.parse_args()
    for path in (*options.models, *options.text, options.llama / "llama-perplexity", options.sluice):
        if not path.exists():
            parser.error(f"{path}: no such file")
    failed = False
    if not options.json:
        print(f"{'model':28} {'text':12} {'ours':>9} {'theirs':>9} {'ratio':>6}   {'PPL ours':>9} {'exact':>9} "
              f"{'PPL theirs':>10} {'float32':>9}", flush=True)
    for row in (row for model in options.models for row in rows_of(options, model)):
        failed |= row["ratio"] > options.limit
        if options.json:
            print(json.dumps(row), flush=True)
        else:
            print(f"{row['model']:28} {row['text']:12} {row['kld_ours']:9.6f} {row['kld_theirs']:9.6f} "
                  f"{row['ratio']:6.2f}   {row['ppl_ours']:9.4f} {row['ppl_exact']:9.4f} {row['ppl_theirs']:10.4f} "
                  f"{row['ppl_float32']:9.4f}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
