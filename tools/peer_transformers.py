#!/usr/bin/env python3
"""Decode speed of Hugging Face transformers on a GGUF file, dequantized to bfloat16; tools/bench_peers.py runs it.

  tools/peer_transformers.py MODEL.gguf [--threads 2] [--tokens 64]      (needs torch, transformers, gguf, accelerate)

Prints one JSON object: decode_tps, of greedy generation from one token with the KV cache, and prefill_tps of 512 tokens,
each after a run to warm up.
"""
import argparse
import json
import os
import time

import torch
import transformers


def generate(model, n_tokens):
    """Seconds for n_tokens single-token passes."""
    with torch.inference_mode():
        out = model(torch.tensor([[1]]), use_cache=True)
        start = time.perf_counter()
        for _ in range(n_tokens):
            token = out.logits[:, -1:].argmax(-1)
            out = model(token, past_key_values=out.past_key_values, use_cache=True)
        return time.perf_counter() - start


def prefill(model, n_tokens):
    ids = torch.randint(3, 1000, (1, n_tokens), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        start = time.perf_counter()
        model(ids, use_cache=True, logits_to_keep=1)
        return time.perf_counter() - start


def main():
    parser = argparse.ArgumentParser(description="decode speed of transformers on a GGUF file")
    parser.add_argument("model")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=64)
    o = parser.parse_args()
    torch.set_num_threads(o.threads)
    transformers.logging.set_verbosity_error()
    folder, name = os.path.split(os.path.abspath(o.model))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.bfloat16).eval()
    generate(model, 4)
    decode_tps = o.tokens / generate(model, o.tokens)
    prefill(model, 512)
    print(json.dumps({"decode_tps": decode_tps, "prefill_tps": 512 / prefill(model, 512), "torch": torch.__version__,
                      "transformers": transformers.__version__}))


if __name__ == "__main__":
    main()
