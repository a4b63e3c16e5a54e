#!/usr/bin/env python3
"""Packs vocabulary-only GGUF files and their test vectors for the tokenizer tests.

usage: vocab_vectors.py OUT_DIR FILE.gguf...

Writes OUT_DIR/<name>.vocab for each file. With FILE.gguf.inp and FILE.gguf.out beside the file their vectors are copied
to <name>.inp and <name>.out; a smollm vocabulary without them gets vectors from Hugging Face tokenizers, set up as that
model's own tokenizer.json does. Needs the Python packages gguf and tokenizers.

The .vocab format (little endian; varint = LEB128, zigzag for signed ones) leaves out what merges imply:
  "SLV1", u8 kind (0 BPE, 1 SPM), u8 add_bos, u8 add_eos, u8 add_space_prefix, varint n + pre-tokenizer name,
  varint n_tokens, varint n_merges, zigzag bos, eos, eot, unk, pad,
  n_merges of: varint left id, varint right id, zigzag (result id - result id of the merge before - 1),
  varint n, then n explicit texts: varint id - id of the one before, varint n_bytes, bytes,
  runs of types until n_tokens: varint length, u8 type,
  SPM: runs of scores until n_tokens: varint length, f32 first, f32 step.
A token without explicit text is the left text followed by the right text of the first merge that results in it.
"""
import os
import shutil
import struct
import sys

import gguf

SEPARATOR = "\n__ggml_vocab_test__\n"


def varint(n):
    out = bytearray()
    while True:
        out.append(n & 127 | (128 if n > 127 else 0))
        n >>= 7
        if not n:
            return bytes(out)


def zigzag(n):
    return varint(n * 2 if n >= 0 else -n * 2 - 1)


def raw_strings(field):
    """The elements of a string array as bytes."""
    return [bytes(field.parts[i]) for i in field.data]


def field(reader, key, default=None):
    f = reader.fields.get("tokenizer.ggml." + key)
    return default if f is None else f.contents()


def split_merge(line):
    at = line.index(b" ", 1)
    return line[:at], line[at + 1:]


def pack_merges(tokens, merges):
    """The merge section, and the set of tokens whose texts it implies."""
    ids = {}
    for i, text in enumerate(tokens):
        ids.setdefault(text, i)
    results = {ids[left + right] for left, right in map(split_merge, merges)}
    out, implied, last = bytearray(), set(), -1
    for left, right in map(split_merge, merges):
        result = ids[left + right]
        out += varint(ids[left]) + varint(ids[right]) + zigzag(result - last - 1)
        last = result
        # Implied only when both halves are known by then: explicit, or implied earlier.
        if all(ids[half] not in results or ids[half] in implied for half in (left, right)):
            implied.add(result)
    return bytes(out), implied


def score_runs(scores):
    out, at = bytearray(), 0
    while at < len(scores):
        first = scores[at]
        step = scores[at + 1] - first if at + 1 < len(scores) else 0.0
        n = 1
        while at + n < len(scores) and scores[at + n] == first + step * n:
            n += 1
        out += varint(n) + struct.pack("<ff", first, step)
        at += n
    return bytes(out)


def type_runs(types):
    out, at = bytearray(), 0
    while at < len(types):
        n = 1
        while at + n < len(types) and types[at + n] == types[at]:
            n += 1
        out += varint(n) + bytes([types[at]])
        at += n
    return bytes(out)


def pack(reader):
    is_spm = field(reader, "model") == "llama"
    pre = b"" if is_spm else field(reader, "pre").encode()
    tokens = raw_strings(reader.fields["tokenizer.ggml.tokens"])
    merges = [] if is_spm else raw_strings(reader.fields["tokenizer.ggml.merges"])
    out = bytearray(b"SLV1")
    out += bytes([is_spm, bool(field(reader, "add_bos_token", is_spm)), bool(field(reader, "add_eos_token", False)),
                  bool(field(reader, "add_space_prefix", is_spm))])
    out += varint(len(pre)) + pre + varint(len(tokens)) + varint(len(merges))
    for key in ("bos", "eos", "eot", "unknown", "padding"):
        out += zigzag(field(reader, key + "_token_id", -1))
    section, implied = pack_merges(tokens, merges)
    out += section
    explicit = [i for i in range(len(tokens)) if i not in implied]
    out += varint(len(explicit))
    last = 0
    for i in explicit:
        out += varint(i - last) + varint(len(tokens[i])) + tokens[i]
        last = i
    out += type_runs(field(reader, "token_type"))
    if is_spm:
        out += score_runs(field(reader, "scores"))
    return bytes(out)


EXTRA = [
    "The quick brown fox jumps over 13 lazy dogs, doesn't it?",
    "def f(x):\n    return x ** 2 + 0x1F  # comment\n\n\nprint(f(10_000))\n",
    "  leading and   inner \t\t runs \n \n of blank\r\n\r\n space  ",
    "Größe, naïve café, Straße; русский текст и ещё; Ελληνικά λόγια",
    "日本語のテキスト、中文文本。한국어 텍스트 ไทย العربية עברית हिन्दी",
    "🦙🚀👩‍👩‍👧‍👦🏳️‍🌈 ✓ ½ ² Ⅷ ٣ ४",
    "'s 'S 'll don't I'd we'Ve can'T ''re",
    "https://example.org/a/b?c=d&e=%20#f <html><body class=\"x\">&nbsp;</body></html>",
    "A" * 70 + "b" * 33 + "1234567890" * 3 + "=" * 41 + " " * 29 + "\n" * 5,
    "\u00a0\u2003\u3000x\u200by\ufeffz\u0301 e\u0301",
    "x\u2028y\u2029z\u0085w\u000bv",
    "",
]


def smollm_vectors(reader, name, out_dir):
    from tokenizers import Tokenizer, models, pre_tokenizers
    tokens, merges = field(reader, "tokens"), field(reader, "merges")
    pairs = [(m[:m.index(" ", 1)], m[m.index(" ", 1) + 1:]) for m in merges]
    tokenizer = Tokenizer(models.BPE({t: i for i, t in enumerate(tokens)}, pairs))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)])
    with open(os.path.join(out_dir, name + ".inp"), "w", newline="") as f:
        f.write(SEPARATOR.join(EXTRA))
    with open(os.path.join(out_dir, name + ".out"), "w") as f:
        for text in EXTRA:
            f.write("".join(" %d" % i for i in tokenizer.encode(text).ids) + "\n")


def main():
    out_dir = sys.argv[1]
    for path in sys.argv[2:]:
        reader = gguf.GGUFReader(path)
        name = os.path.basename(path).removesuffix(".gguf").removeprefix("ggml-vocab-")
        with open(os.path.join(out_dir, name + ".vocab"), "wb") as f:
            f.write(pack(reader))
        if os.path.exists(path + ".inp"):
            for ext in (".inp", ".out"):
                shutil.copyfile(path + ext, os.path.join(out_dir, name + ext))
        elif field(reader, "pre") == "smollm":
            smollm_vectors(reader, name, out_dir)


if __name__ == "__main__":
    main()
