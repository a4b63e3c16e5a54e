#!/usr/bin/env python3
"""Writes a llama model with wider layers that computes what the given one does: K-quants need 256 columns at a time.

The embedding width and the number of heads grow in the same proportion until the width is a multiple of 256; what is new
has zero weights. A norm over the wider vector sees the same sum of squares spread over more values, so its weights and
its epsilon shrink to make up for that. All matrices are written as float32, ready for llama-quantize.

    tools/widen_model.py smollm2.gguf smollm2-wide-f32.gguf
    llama-quantize --pure smollm2-wide-f32.gguf smollm2-wide-q3_k.gguf Q3_K_M

Needs the packages gguf and numpy.
"""
import argparse
import math

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize

UNIT = 256


def widened(width, n_heads, n_kv_heads):
    """The smallest (width, heads, KV heads) in proportion that K-quants can hold."""
    group, head_dim = n_heads // n_kv_heads, width // n_heads
    for kv in range(n_kv_heads, 64 * n_kv_heads):
        if kv * group * head_dim % UNIT == 0:
            return kv * group * head_dim, kv * group, kv
    raise SystemExit(f"no wider shape for {width} columns and {n_heads} heads")


def padded(matrix, rows, cols):
    out = np.zeros((rows, cols), np.float32)
    out[:matrix.shape[0], :matrix.shape[1]] = matrix
    return out


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", help="GGUF file of architecture llama")
    parser.add_argument("target", help="GGUF file to write")
    args = parser.parse_args()
    reader = GGUFReader(args.source)
    field = lambda name: reader.fields[name].contents()
    if field("general.architecture") != "llama":
        raise SystemExit(f"{args.source}: only models of architecture llama can be widened")
    width, heads, kv_heads = (field(f"llama.{k}") for k in
                              ("embedding_length", "attention.head_count", "attention.head_count_kv"))
    if any("rope_freqs" in t.name for t in reader.tensors):
        raise SystemExit(f"{args.source}: RoPE factors are not supported here")
    wide, wide_heads, wide_kv = widened(width, heads, kv_heads)
    head_dim, shrink = width // heads, width / wide
    changed = {"llama.embedding_length": wide, "llama.attention.head_count": wide_heads,
               "llama.attention.head_count_kv": wide_kv}
    writer = GGUFWriter(args.target, "llama")
    for name, value in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        content = changed.get(name, value.contents())
        if name == "llama.attention.layer_norm_rms_epsilon":
            content *= shrink
        sub = value.types[-1] if value.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, content, value.types[0], sub)
    shapes = {"attn_q": (wide_heads * head_dim, wide), "attn_k": (wide_kv * head_dim, wide),
              "attn_v": (wide_kv * head_dim, wide), "attn_output": (wide, wide_heads * head_dim)}
    for tensor in reader.tensors:
        values = dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if values.ndim == 1:
            out = padded(values[None] * np.float32(math.sqrt(shrink)), 1, wide)[0]
        else:
            kind = tensor.name.split(".")[-2]
            rows, cols = (wide if n == width else n for n in values.shape)
            out = padded(values, *shapes.get(kind, (rows, cols)))
        writer.add_tensor(tensor.name, out)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
