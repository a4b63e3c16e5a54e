#!/usr/bin/env python3
"""Makes tests/golden/dequant.bin: blocks and the float32 values that gguf-py reads from them.

Needs the packages gguf and numpy. The output is the same every time for the same versions of both:
  tools/golden_dequant.py tests/golden/dequant.bin        (made with gguf 0.19.0, numpy 2.4.6)

Layout, all little endian: for each type u32 type id, u32 number of elements, u32 bytes of blocks, the blocks, the values
as float32. Then u32 0xffffffff, u32 n, and n pairs of (u32 float32 bits, u16 f16 bits, u16 bf16 bits).
"""
import struct
import sys

import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize, quantize

# Byte offsets of the f16 scales in a block; everything else may hold any bits.
F16_AT = {
    T.F16: [0], T.Q4_0: [0], T.Q4_1: [0, 2], T.Q5_0: [0], T.Q5_1: [0, 2], T.Q8_0: [0], T.Q2_K: [80, 82], T.Q3_K: [108],
    T.Q4_K: [0, 2], T.Q5_K: [0, 2], T.Q6_K: [208], T.IQ4_NL: [0], T.IQ4_XS: [0], T.MXFP4: [],
}
# Zeros of both signs, least and greatest subnormal, least normal, one, greatest finite value.
EDGE_F16 = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3C00, 0x7BFF, 0xFBFF]


def blocks_of(kind, rng):
    _, size = GGML_QUANT_SIZES[kind]
    at = F16_AT[kind]
    n = 64 if kind == T.F16 else len(EDGE_F16) + 4
    blocks = rng.integers(0, 256, (n, size), dtype=np.uint8)
    for i in range(n):
        for j, offset in enumerate(at):
            if i < len(EDGE_F16):
                half = EDGE_F16[(i + 3 * j) % len(EDGE_F16)]
            else:
                half = int(np.float16(rng.normal(0, 0.05)).view(np.uint16))
            blocks[i, offset:offset + 2] = np.frombuffer(struct.pack("<H", half), np.uint8)
    if kind == T.MXFP4:
        blocks[:, 0] = [0, 1, 2, 3, 126, 127, 128, 129, 100, 250, 110, 120]
    return blocks.reshape(-1)


def main():
    rng = np.random.default_rng(1)
    out = bytearray()
    plain = rng.integers(0, 1 << 32, 64, dtype=np.uint32)
    plain = plain[np.isfinite(plain.view(np.float32))]
    bfloats = (plain >> 16).astype(np.uint16)
    cases = [(T.F32, plain.view(np.uint8)), (T.BF16, bfloats.view(np.uint8))]
    cases += [(kind, blocks_of(kind, rng)) for kind in F16_AT]
    for kind, blocks in cases:
        values = dequantize(blocks, kind).astype("<f4").reshape(-1)
        assert np.isfinite(values).all(), kind
        out += struct.pack("<III", kind, values.size, blocks.size) + blocks.tobytes() + values.tobytes()

    # Around every rounding border of f16: halfway points between neighbours, and one step to each side.
    half = rng.integers(0, 0x7C00, 200, dtype=np.uint16)
    half[:8] = [0, 1, 2, 0x3FE, 0x3FF, 0x400, 0x7BFE, 0x7BFF]
    low = half.view(np.float16).astype(np.float64)
    step = np.where(half < 0x400, 2.0**-24, 2.0 ** ((half >> 10).astype(np.float64) - 25))
    middle = (low + step / 2).astype(np.float32).view(np.uint32)
    bits = np.concatenate([middle, middle - (middle > 0), middle + 1])
    bits = np.concatenate([bits, bits | 0x80000000, rng.integers(0, 0x7F800000, 200, dtype=np.uint32),
                           np.array([0x7F800000, 0xFF800000, 0x7F7FFFFF, 0x477FEFFF, 0x477FF000, 0x7FC00000],
                                    np.uint32)]).astype(np.uint32)
    with np.errstate(over="ignore"):
        f16 = bits.view(np.float32).astype(np.float16).view(np.uint16)
    bf16 = quantize(bits.view(np.float32).reshape(1, -1), T.BF16).reshape(-1).view(np.uint16)
    out += struct.pack("<II", 0xFFFFFFFF, bits.size)
    for triple in zip(bits.tolist(), f16.tolist(), bf16.tolist()):
        out += struct.pack("<IHH", *triple)
    with open(sys.argv[1], "wb") as f:
        f.write(out)


if __name__ == "__main__":
    main()
