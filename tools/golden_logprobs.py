#!/usr/bin/env python3
"""Makes tests/golden/*_logprobs.json: teacher-forced log-probabilities of real models on tools/golden_prompts.py.

  tools/golden_logprobs.py smollm2 SMOLLM2.gguf transformers > tests/golden/smollm2_logprobs.json
  tools/golden_logprobs.py --long smollm2 SMOLLM2.gguf transformers > tests/golden/smollm2_long_logprobs.json
  tools/golden_logprobs.py gemma3 GEMMA3.gguf transformers > tests/golden/gemma3_fp32_logprobs.json
  tools/golden_logprobs.py gemma3 GEMMA3.gguf ./llamacpp_logits > tests/golden/gemma3_logprobs.json
  tools/golden_logprobs.py --compare A.json B.json

The reference is transformers with the file's weights dequantized and all arithmetic in float32, or llama.cpp, whose
matmuls quantize their activations, through the program of tools/llamacpp_logits.c. Token ids come from the tokenizer
that transformers builds from the GGUF. Per prompt: "tokens"; "logprobs"[i] of tokens[i + 1] after tokens[0..i]; "top"[i]
the five most likely next tokens as [id, logprob], for every position, the last one too.
--long takes the beginnings of the evaluation texts, LONG_TOKENS tokens each, and keeps every LONG_STEP-th position:
"positions"; "logprobs"[i] of the token after position positions[i]; "top"[i] the most likely one there.
How far apart the references are (1,111 positions of SmolLM2, 1,025 of Gemma 3; |difference| of log-probabilities):
float32 and llama.cpp on the same weights dequantized to F32: SmolLM2 max 0.00005; Gemma mean 0.0007, max 0.022 (llama.cpp
takes GELU from a float16 table). float32 and llama.cpp on the quantized file: SmolLM2 mean 0.062, p99 0.37, max 1.17, same
most likely token 96.8 %; Gemma mean 0.076, p99 0.42, max 1.67, same 96.5 %.
Made with transformers 5.23, torch 2.15, gguf 0.19, llama.cpp build 11434.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma3ForCausalLM, Gemma3TextConfig

from golden_prompts import prompts
from tiny_models import GEMMA3_NAMES, gguf_name

TEXTS = Path(__file__).resolve().parent.parent / "tests/golden/text"
LONG_TOKENS, LONG_STEP = 1600, 7  # 7: so that positions fall differently into blocks, chunks and splits


def load_gemma3(path):
    """Gemma 3 with its GGUF tensors dequantized by gguf-py. The GGUF's norms hold 1 + w, transformers wants w."""
    reader = gguf.GGUFReader(path)

    def key(name):
        return reader.fields[f"gemma3.{name}"].contents()

    tensors = {t.name: t for t in reader.tensors}
    head_dim = key("attention.key_length")
    config = Gemma3TextConfig(
        vocab_size=int(tensors["token_embd.weight"].shape[1]), hidden_size=key("embedding_length"),
        intermediate_size=key("feed_forward_length"), num_hidden_layers=key("block_count"),
        num_attention_heads=key("attention.head_count"), num_key_value_heads=key("attention.head_count_kv"),
        head_dim=head_dim, query_pre_attn_scalar=head_dim, max_position_embeddings=key("context_length"),
        rms_norm_eps=key("attention.layer_norm_rms_epsilon"), sliding_window=key("attention.sliding_window"),
        attn_implementation="eager")
    model = Gemma3ForCausalLM(config)
    unused = set(tensors)
    for name, p in model.named_parameters():
        t = tensors[gguf_name(name, GEMMA3_NAMES)]
        x = gguf.quants.dequantize(t.data, t.tensor_type)
        p.data.copy_(torch.from_numpy(np.array(x - 1 if p.ndim == 1 else x, dtype=np.float32)))
        unused.remove(t.name)
    assert not unused, unused
    return model.eval()


def load_reference(kind, path, reference):
    """Function from token ids to logits [n_tokens, n_vocab]."""
    if reference != "transformers":
        def llamacpp(tokens):
            line = (" ".join(map(str, tokens)) + "\n").encode()
            out = subprocess.run([reference, path], input=line, stdout=subprocess.PIPE, check=True).stdout
            return torch.from_numpy(np.frombuffer(out, dtype="<f4").reshape(len(tokens), -1).copy())
        return llamacpp
    if kind == "gemma3":
        model = load_gemma3(path)
    else:
        folder, name = os.path.split(os.path.abspath(path))
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32,
                                                     attn_implementation="eager").eval()

    def transformers(tokens):
        with torch.no_grad():
            return model(torch.tensor([tokens])).logits[0]
    return transformers


def score(logits, tokens):
    """Log-probabilities of the tokens that follow and the five most likely ones, with six decimals."""
    following, top = [], []
    for i in range(len(tokens)):
        logprob = torch.log_softmax(logits[i].double(), -1)
        if i + 1 < len(tokens):
            following.append(round(logprob[tokens[i + 1]].item(), 6))
        values, ids = logprob.topk(5)
        top.append([[t, round(v, 6)] for t, v in zip(ids.tolist(), values.tolist())])
    return following, top


def prompt_row(logits_of, tokenizer, name, text):
    tokens = tokenizer(text)["input_ids"]
    following, top = score(logits_of(tokens), tokens)
    return {"name": name, "text": text, "tokens": tokens, "logprobs": following, "top": top}


def long_row(logits_of, tokenizer, name):
    tokens = tokenizer((TEXTS / f"{name}.txt").read_text())["input_ids"][:LONG_TOKENS]
    assert len(tokens) == LONG_TOKENS
    following, top = score(logits_of(tokens), tokens)
    positions = list(range(0, LONG_TOKENS - 1, LONG_STEP))
    return {"name": name, "tokens": tokens, "positions": positions, "logprobs": [following[p] for p in positions],
            "top": [top[p][0] for p in positions]}


def compare(path_a, path_b):
    a, b = (json.load(open(p))["prompts"] for p in (path_a, path_b))
    differences, same_first, n = [], 0, 0
    for x, y in zip(a, b, strict=True):
        assert x["tokens"] == y["tokens"]
        d = np.abs(np.array(x["logprobs"]) - np.array(y["logprobs"]))
        same = sum(p[0][0] == q[0][0] for p, q in zip(x["top"], y["top"], strict=True))
        print(f"{x['name']:12} {len(x['tokens']):4} tokens, |difference| mean {d.mean():.5f} max {d.max():.5f}, "
              f"same most likely token {same}")
        differences.append(d)
        same_first += same
        n += len(x["top"])
    d = np.concatenate(differences)
    print(f"all: {len(d)} scored, |difference| mean {d.mean():.5f} p99 {np.quantile(d, 0.99):.5f} max {d.max():.5f}, "
          f"same most likely token {same_first / n:.2%}")


def main():
    if sys.argv[1] == "--compare":
        compare(*sys.argv[2:])
        return
    long = sys.argv[1] == "--long"
    kind, path, reference = sys.argv[1 + long:]
    torch.set_num_threads(2)
    folder, name = os.path.split(os.path.abspath(path))
    tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
    logits_of = load_reference(kind, path, reference)
    if long:
        rows = [long_row(logits_of, tokenizer, text) for text in ("english", "code")]
    else:
        rows = [prompt_row(logits_of, tokenizer, prompt, text) for prompt, text in prompts(kind)]
    parts = [json.dumps(row, separators=(",", ":")) for row in rows]
    head = {"model": name, "reference": "transformers, float32" if reference == "transformers" else "llama.cpp"}
    print(json.dumps(head)[:-1] + ', "prompts": [\n' + ",\n".join(parts) + "\n]}")


if __name__ == "__main__":
    main()
