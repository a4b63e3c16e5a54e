#!/usr/bin/env python3
"""Golden values for the sampler: tests/golden/sampler.json.

The filtered distributions come from the logits processors of Hugging Face transformers, in the order in which its
generate() applies them (float32); presence and frequency penalties, which it lacks, are computed as OpenAI's API
reference defines them. The random words come from NumPy's Philox. Log-probabilities are torch.log_softmax in float64.
Run again only to add cases: python tools/golden_sampler.py > tests/golden/sampler.json
Written with torch 2.15, transformers 5.23, numpy 2.4.
"""
import json

import numpy as np
import torch
from transformers.generation.logits_process import (
    LogitsProcessorList, MinNewTokensLengthLogitsProcessor, MinPLogitsWarper, NoBadWordsLogitsProcessor,
    PrefixConstrainedLogitsProcessor, RepetitionPenaltyLogitsProcessor, SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper)

rng = np.random.default_rng(20240607)


def floats(x):
    """float32 values as the shortest decimals that read back exactly; None stands for -inf."""
    return [None if np.isneginf(v) else float(np.format_float_positional(v, unique=True, trim="-"))
            for v in np.asarray(x, dtype=np.float32)]


def make_logits():
    plain = rng.normal(0, 3, 300).astype(np.float32)
    masked = rng.normal(-2, 4, 517).astype(np.float32)
    masked[rng.choice(517, 200, replace=False)] = -np.inf
    peaked = rng.normal(-5, 2, 1031).astype(np.float32)
    peaked[rng.choice(1031, 6, replace=False)] += 14
    flat = (rng.normal(0, 0.05, 64) + 20).astype(np.float32)
    return {"plain": plain, "masked": masked, "peaked": peaked, "flat": flat}


DEFAULTS = {"temperature": 1.0, "top_k": 0, "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0,
            "presence_penalty": 0.0, "frequency_penalty": 0.0, "bias": [], "prompt": [], "generated": [],
            "bad_words": [], "min_tokens": 0, "stop_tokens": [], "allowed_tokens": []}


def reference(logits, c):
    """The probabilities after all processors, float32, zero where filtered out."""
    processors = LogitsProcessorList()
    if c["bias"]:
        processors.append(SequenceBiasLogitsProcessor({(int(t),): float(b) for t, b in c["bias"]}))
    if c["repetition_penalty"] != 1.0:
        processors.append(RepetitionPenaltyLogitsProcessor(c["repetition_penalty"]))
    ids = torch.tensor([c["prompt"] + c["generated"]], dtype=torch.long)
    scores = processors(ids, torch.tensor(logits)[None])
    counts = torch.bincount(torch.tensor(c["generated"], dtype=torch.long), minlength=len(logits))
    scores = scores - c["frequency_penalty"] * counts - c["presence_penalty"] * (counts > 0)
    masks = LogitsProcessorList()
    if c["bad_words"]:
        masks.append(NoBadWordsLogitsProcessor(c["bad_words"]))
    if c["min_tokens"]:
        masks.append(MinNewTokensLengthLogitsProcessor(len(c["prompt"]), c["min_tokens"], c["stop_tokens"]))
    if c["allowed_tokens"]:
        masks.append(PrefixConstrainedLogitsProcessor(lambda batch, ids: c["allowed_tokens"], 1))
    scores = masks(ids, scores)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(c["temperature"])])
    if c["top_k"]:
        warpers.append(TopKLogitsWarper(c["top_k"]))
    if c["top_p"] < 1.0:
        warpers.append(TopPLogitsWarper(c["top_p"]))
    if c["min_p"]:
        warpers.append(MinPLogitsWarper(c["min_p"]))
    return torch.softmax(warpers(ids, scores), dim=-1)[0].numpy()


def make_cases(logits):
    variants = [
        {}, {"temperature": 0.25}, {"temperature": 2.0}, {"temperature": 0.01}, {"top_k": 1}, {"top_k": 2}, {"top_k": 40},
        {"top_k": 250}, {"top_k": 100000}, {"top_p": 0.001}, {"top_p": 0.5}, {"top_p": 0.9}, {"top_p": 0.999},
        {"min_p": 0.001}, {"min_p": 0.05}, {"min_p": 0.5}, {"min_p": 1.0}, {"top_k": 50, "top_p": 0.8},
        {"top_k": 30, "top_p": 0.95, "min_p": 0.02, "temperature": 1.5}, {"top_p": 0.7, "min_p": 0.1, "temperature": 0.7},
        {"repetition_penalty": 1.3, "history": True}, {"repetition_penalty": 0.8, "history": True, "top_k": 40},
        {"presence_penalty": 1.5, "history": True, "top_k": 60}, {"frequency_penalty": 0.75, "history": True, "top_p": 0.95},
        {"presence_penalty": -2.0, "frequency_penalty": -0.5, "history": True, "min_p": 0.01},
        {"bias": 4, "top_k": 20}, {"bias": 7, "repetition_penalty": 1.2, "presence_penalty": 0.4,
         "frequency_penalty": 0.3, "history": True, "temperature": 0.9, "top_k": 100, "top_p": 0.9, "min_p": 0.01},
    ]
    cases = []
    for name, values in logits.items():
        n = len(values)
        for variant in variants:
            c = {**DEFAULTS, **variant}
            if c.pop("history", False):
                likely = np.argsort(-values)[:12]
                c["prompt"] = [int(t) for t in rng.choice(likely, 5)] + [int(t) for t in rng.integers(0, n, 10)]
                c["generated"] = [int(t) for t in rng.choice(likely, 9)] + [int(t) for t in rng.integers(0, n, 6)]
            if c["bias"]:
                tokens = rng.choice(n, c["bias"], replace=False)
                c["bias"] = [[int(t), float(np.float32(b))] for t, b in zip(tokens, rng.normal(0, 8, len(tokens)))]
            p = reference(values, c)
            support = np.flatnonzero(p)
            c = {k: v for k, v in c.items() if v != DEFAULTS[k]}
            cases.append({"logits": name, **c, "support": support.tolist(),
                          "probability": [float(f"{v:.7g}") for v in p[support]]})
    return cases


def make_masked_cases(logits):
    """Bad words (begun in the prompt, across it and the answer, in the answer, not begun), min_tokens, allowed tokens."""
    variants = [
        {"bad_words": True}, {"bad_words": True, "top_k": 30, "temperature": 0.8},
        {"min_tokens": 7, "stop_tokens": True}, {"min_tokens": 6, "stop_tokens": True}, {"min_tokens": 99, "stop_tokens": True},
        {"allowed_tokens": 1}, {"allowed_tokens": 12}, {"allowed_tokens": 60, "top_p": 0.8},
        {"allowed_tokens": 60, "bad_words": True, "min_tokens": 50, "stop_tokens": True, "bias": 5, "top_k": 20,
         "repetition_penalty": 1.3, "presence_penalty": 0.5, "min_p": 0.001},
    ]
    cases = []
    for name, values in logits.items():
        n = len(values)
        likely = [int(t) for t in np.argsort(-values)[:40]]
        for variant in variants:
            c = {**DEFAULTS, **variant, "prompt": [int(t) for t in rng.integers(0, n, 9)],
                 "generated": [int(t) for t in rng.integers(0, n, 6)]}
            past = c["prompt"] + c["generated"]
            if c["bad_words"]:
                c["bad_words"] = [[likely[0]], past[-1:] + [likely[1]], past[-3:] + [likely[2]], past[-8:] + [likely[3]],
                                  past + [likely[4]], [past[-2], past[-2], likely[5]], past[-4:-1] + [likely[6]],
                                  [0] + past + [likely[7]], past[-1:] + [likely[8]], past[-1:] + [likely[8]]]
            if c["stop_tokens"]:
                c["stop_tokens"] = likely[9:12] + [5]
            if c["allowed_tokens"]:
                some = likely[:c["allowed_tokens"] // 2] + [int(t) for t in rng.integers(0, n, c["allowed_tokens"])]
                # one that is finite and survives every mask
                c["allowed_tokens"] = [int(t) for t in rng.permutation(some + [likely[20]])]
            if c["bias"]:
                c["bias"] = [[t, float(np.float32(b))] for t, b in zip(likely[18:23], rng.normal(0, 8, 5))]
            p = reference(values, c)
            support = np.flatnonzero(p)
            assert len(support)
            cases.append({"logits": name, **{k: v for k, v in c.items() if v != DEFAULTS[k]}, "support": support.tolist(),
                          "probability": [float(f"{v:.7g}") for v in p[support]]})
    return cases


def make_random():
    """Philox4x64-10 of key (seed, 0) and counter (position, 0, 0, 0); NumPy counts up before its first block."""
    words = []
    for seed, position in [(0, 0), (0, 1), (1, 0), (42, 7), (2**64 - 1, 2**64 - 1), (0x0123456789abcdef, 2**32)]:
        counter = np.array([position, 0, 0, 0], dtype=np.uint64)
        if position == 0:
            counter = np.full(4, 2**64 - 1, dtype=np.uint64)
        else:
            counter[0] = position - 1
        word = np.random.Philox(counter=counter, key=np.array([seed, 0], dtype=np.uint64)).random_raw()
        words.append([f"{seed:x}", f"{position:x}", f"{int(word):x}"])
    return words


def main():
    logits = make_logits()
    logprobs = {k: [None if np.isinf(x) else float(f"{x:.9g}")
                    for x in torch.log_softmax(torch.tensor(v, dtype=torch.float64), 0).numpy()] for k, v in logits.items()}
    parts = [f'"logits": {json.dumps({k: floats(v) for k, v in logits.items()})}',
             f'"logprobs": {json.dumps(logprobs)}', f'"philox": {json.dumps(make_random())}',
             '"cases": [\n' + ",\n".join(json.dumps(c) for c in make_cases(logits) + make_masked_cases(logits)) + "\n]"]
    print("{\n" + ",\n".join(parts) + "\n}")


if __name__ == "__main__":
    main()
