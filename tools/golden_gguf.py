#!/usr/bin/env python3
"""Makes tests/golden/small.gguf with gguf-py's own writer: one key of every kind, arrays, three tensors.

Needs the packages gguf and numpy: tools/golden_gguf.py tests/golden/small.gguf   (made with gguf 0.19.0)
tests/unit/test_gguf.c reads it, and writes the same content, which must give the same bytes.
"""
import sys

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType, GGUFWriter

w = GGUFWriter(sys.argv[1], "golden")
w.add_custom_alignment(64)
w.add_uint8("k.u8", 200)
w.add_int8("k.i8", -100)
w.add_uint16("k.u16", 60000)
w.add_int16("k.i16", -30000)
w.add_uint32("k.u32", 4000000000)
w.add_int32("k.i32", -2000000000)
w.add_float32("k.f32", 1.5)
w.add_bool("k.bool", True)
w.add_string("k.string", "grüße\n🙂")
w.add_uint64("k.u64", 1 << 63)
w.add_int64("k.i64", -(1 << 62))
w.add_float64("k.f64", 0.1)
w.add_key_value("k.strings", ["", "a", "bc"], GGUFValueType.ARRAY, GGUFValueType.STRING)
w.add_key_value("k.ints", [1, -2, 3], GGUFValueType.ARRAY, GGUFValueType.INT32)
w.add_key_value("k.bools", [True, False], GGUFValueType.ARRAY, GGUFValueType.BOOL)
w.add_tensor("a", np.arange(6, dtype=np.float32).reshape(2, 3))
w.add_tensor("b", np.arange(2 * 36, dtype=np.uint8).reshape(2, 36), raw_dtype=GGMLQuantizationType.Q4_0)
w.add_tensor("c", np.arange(24, dtype=np.float16).reshape(1, 2, 3, 4))
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()
