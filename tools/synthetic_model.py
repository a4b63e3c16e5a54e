#!/usr/bin/env python3
"""Writes a GGUF of a real model's shape with random weights, for measurements of speed and memory. Its text is nonsense.

  tools/synthetic_model.py --tokenizer smollm2.gguf llama1b-f16.gguf        (needs gguf 0.19 and numpy)
  llama-quantize llama1b-f16.gguf llama1b-q4_k_m.gguf Q4_K_M

The architecture is llama with tied embeddings; the defaults make 1.07 billion parameters. The tokenizer comes from an
existing GGUF, whose vocabulary's size the model takes, so that both sluice and llama.cpp load it. Projections and
embeddings are drawn from a normal distribution, norms are 1: activations stay finite and logits have a standard
deviation of about one. Each tensor's generator is seeded with --seed and its place in the file: the same options give the
same file. Quantized types other than Q8_0 are llama-quantize's business, whose mixtures of types are the usual ones.
"""
import argparse

import gguf
import numpy as np

TYPES = {"f16": gguf.GGMLQuantizationType.F16, "q8_0": gguf.GGMLQuantizationType.Q8_0}
FILE_TYPES = {"f16": gguf.LlamaFileType.MOSTLY_F16, "q8_0": gguf.LlamaFileType.MOSTLY_Q8_0}


def list_tensors(o, n_vocab):
    """(name, rows, columns) of each matrix, (name, 0, columns) of each norm, in the file's order."""
    kv_width = o.width // o.heads * o.kv_heads
    tensors = [("token_embd.weight", n_vocab, o.width)]
    for layer in range(o.layers):
        tensors += [(f"blk.{layer}.{name}.weight", rows, columns) for name, rows, columns in (
            ("attn_norm", 0, o.width), ("attn_q", o.width, o.width), ("attn_k", kv_width, o.width),
            ("attn_v", kv_width, o.width), ("attn_output", o.width, o.width), ("ffn_norm", 0, o.width),
            ("ffn_gate", o.ff, o.width), ("ffn_up", o.ff, o.width), ("ffn_down", o.width, o.ff))]
    return tensors + [("output_norm.weight", 0, o.width)]


def copy_tokenizer(reader, w):
    """Copies every field of the tokenizer; returns the number of tokens."""
    for name, field in reader.fields.items():
        if name.startswith("tokenizer."):
            w.add_key_value(name, field.contents(), field.types[0], field.types[-1] if len(field.types) > 1 else None)
    return len(reader.fields["tokenizer.ggml.tokens"].data)


def describe(o, w, n_vocab):
    head_dim = o.width // o.heads
    w.add_name(f"synthetic {o.layers}x{o.width}")
    w.add_vocab_size(n_vocab)
    w.add_context_length(o.context)
    w.add_embedding_length(o.width)
    w.add_block_count(o.layers)
    w.add_feed_forward_length(o.ff)
    w.add_head_count(o.heads)
    w.add_head_count_kv(o.kv_heads)
    w.add_rope_dimension_count(head_dim)
    w.add_rope_freq_base(o.rope_base)
    w.add_layer_norm_rms_eps(1e-5)
    w.add_file_type(FILE_TYPES[o.type])


def make_tensor(o, index, rows, columns):
    """A tensor's values as the file holds them: F32 ones for a norm, o.type for a matrix."""
    if rows == 0:
        return np.ones(columns, dtype=np.float32)
    values = np.random.default_rng([o.seed, index]).standard_normal((rows, columns), dtype=np.float32)
    return gguf.quants.quantize(values * np.float32(o.std), TYPES[o.type])


def write_model(o):
    w = gguf.GGUFWriter(o.output, "llama")
    n_vocab = copy_tokenizer(gguf.GGUFReader(o.tokenizer), w)
    if o.vocab not in (None, n_vocab):
        raise SystemExit(f"{o.tokenizer} has {n_vocab} tokens, --vocab says {o.vocab}")
    describe(o, w, n_vocab)
    tensors = list_tensors(o, n_vocab)
    for name, rows, columns in tensors:
        kind = TYPES[o.type] if rows else gguf.GGMLQuantizationType.F32
        shape = (rows, columns) if rows else (columns,)
        if kind == gguf.GGMLQuantizationType.Q8_0:
            w.add_tensor_info(name, gguf.quant_shape_to_byte_shape(shape, kind), np.dtype(np.uint8),
                              rows * columns // 32 * 34, raw_dtype=kind)
        else:
            dtype = np.dtype(np.float16 if rows else np.float32)
            w.add_tensor_info(name, shape, dtype, int(np.prod(shape)) * dtype.itemsize)
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_ti_data_to_file()
    for index, (name, rows, columns) in enumerate(tensors):  # one at a time: the whole would need twice its size
        w.write_tensor_data(make_tensor(o, index, rows, columns))
    w.close()
    n_params = sum(max(rows, 1) * columns for _, rows, columns in tensors)
    print(f"{o.output}: {n_params / 1e9:.3f} billion parameters, {len(tensors)} tensors, {o.type}")


def main():
    parser = argparse.ArgumentParser(description="write a GGUF of a real shape with random weights")
    parser.add_argument("output")
    parser.add_argument("--tokenizer", required=True, metavar="GGUF", help="file whose tokenizer is copied")
    parser.add_argument("--type", choices=TYPES, default="f16", help="of the matrices (default f16)")
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--width", type=int, default=2048, help="of the residual stream (default 2048)")
    parser.add_argument("--ff", type=int, default=8192, help="width of the feed-forward block (default 8192)")
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=8)
    parser.add_argument("--vocab", type=int, help="fail if the tokenizer's number of tokens is another one")
    parser.add_argument("--context", type=int, default=8192, help="tokens the model claims to be made for (default 8192)")
    parser.add_argument("--rope-base", type=float, default=500000.0)
    parser.add_argument("--std", type=float, default=0.02, help="standard deviation of the weights (default 0.02)")
    parser.add_argument("--seed", type=int, default=1)
    o = parser.parse_args()
    if o.width % o.heads or o.heads % o.kv_heads or o.width % 256 or o.ff % 256:
        parser.error("widths must be multiples of 256, --width of --heads, --heads of --kv-heads")
    write_model(o)


if __name__ == "__main__":
    main()
