#!/usr/bin/env python3
"""Makes tests/golden/tiny_*.gguf, .logits, .hidden and .kept: small models of random weights, and what transformers
computes from them.

  tools/tiny_models.py [tests/golden]        (made with transformers 5.23, torch 2.15, gguf 0.19, numpy 2.4.6)

Each model is F32, under 1 MB, and written as llama.cpp's converter would: q and k rows permuted for llama (RoPE of
adjacent pairs), gemma norms with their 1 added, rope_freqs.weight as divisors. Weights come from NumPy's generator, so
the files are the same wherever this runs. Norm weights scatter around 1 and projections are large enough that attention
is neither uniform nor one-hot: a mistake in any step changes the logits far beyond rounding.

NAME.logits, little-endian: u32 n_tokens, u32 n_vocab, i32 token[n_tokens], f32 logit[n_tokens][n_vocab]. Logits of
position i follow tokens 0..i, computed in float32. NAME.hidden: u32 n_tokens, u32 n_embd, the same ids, f32
state[n_tokens][n_embd], what the vocabulary matmul reads (the last layer's output after its norm).
NAME.kept: logits where only some keys and values are kept, see write_kept.
"""
import os
import sys
from collections import Counter

import gguf
import numpy as np
import torch
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, LlamaConfig, LlamaForCausalLM

N_VOCAB = 352
N_TOKENS = 80
CORPUS = """the quick brown fox jumps over the lazy dog and then there is another thing that the dog does not like in the
morning when it rains on the station and all of the other animals are resting under the trees near the river""".split()
CHATML = ("{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
          "'\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}")
GEMMA = ("{{ bos_token }}{% for message in messages %}{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' "
         "else message['role']) + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
         "{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}")


def train_merges(space, n):
    """The n most frequent successive pair merges of the corpus, ties by spelling: (left, right) in order."""
    words = Counter(tuple(space + w) for w in CORPUS)
    merges = []
    while len(merges) < n:
        pairs = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        merged = Counter()
        for word, count in words.items():
            out = []
            for symbol in word:
                if out and (out[-1], symbol) == best:
                    out[-1] += symbol
                else:
                    out.append(symbol)
            merged[tuple(out)] += count
        words = merged
    return merges


def byte_alphabet():
    """GPT-2's printable character for each byte."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    extra = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(extra)) for b in range(256)]


def write_bpe_vocab(w, pre, add_bos):
    specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = byte_alphabet()
    merges = train_merges(alphabet[32], N_VOCAB - 259)
    tokens = specials + alphabet + [a + b for a, b in merges]
    assert len(set(tokens)) == N_VOCAB
    w.add_tokenizer_model("gpt2")
    w.add_tokenizer_pre(pre)
    w.add_token_list(tokens)
    w.add_token_types([gguf.TokenType.CONTROL] * 3 + [gguf.TokenType.NORMAL] * (N_VOCAB - 3))
    w.add_token_merges([f"{a} {b}" for a, b in merges])
    w.add_bos_token_id(1)
    w.add_eos_token_id(2)
    w.add_unk_token_id(0)
    w.add_pad_token_id(0)
    w.add_add_bos_token(add_bos)
    w.add_add_space_prefix(False)
    w.add_chat_template(CHATML)


def write_spm_vocab(w):
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    characters = ["\u2581", "\n"] + sorted(set("".join(CORPUS)) | set(".,!?0123456789"))
    merges = train_merges("\u2581", N_VOCAB - len(specials) - 256 - len(characters))
    pieces = [a + b for a, b in merges]
    kinds = gguf.TokenType
    w.add_tokenizer_model("llama")
    w.add_tokenizer_pre("default")
    w.add_token_list(specials + [f"<0x{b:02X}>" for b in range(256)] + pieces + characters)
    w.add_token_scores([-1000.0] * 262 + [-float(i) for i in range(len(pieces) + len(characters))])
    w.add_token_types([kinds.CONTROL] * 3 + [kinds.UNKNOWN] + [kinds.CONTROL] * 2 + [kinds.BYTE] * 256
                      + [kinds.NORMAL] * (len(pieces) + len(characters)))
    w.add_bos_token_id(2)
    w.add_eos_token_id(1)
    w.add_unk_token_id(3)
    w.add_pad_token_id(0)
    w.add_add_bos_token(True)
    w.add_add_space_prefix(False)
    w.add_chat_template(GEMMA)


def randomise(model, seed, embed_std, norm_centre):
    """Fills every parameter: norms around norm_centre, embeddings with embed_std, projections by their fan-in."""
    rng = np.random.default_rng(seed)
    for name, p in sorted(model.named_parameters()):
        shape = tuple(p.shape)
        if p.ndim == 1:
            x = norm_centre + 0.25 * rng.standard_normal(shape)
        elif "embed_tokens" in name:
            x = embed_std * rng.standard_normal(shape)
        else:
            gain = {"q_proj": 1.6, "k_proj": 1.6, "lm_head": 2.5}.get(name.split(".")[-2], 1.0)
            x = gain / np.sqrt(shape[1]) * rng.standard_normal(shape)
        p.data.copy_(torch.from_numpy(x.astype(np.float32)))


def permute(weight, n_head):
    """Rows of q or k from rotate-half order to adjacent pairs, as llama.cpp's converter."""
    rows, columns = weight.shape
    return weight.reshape(n_head, 2, rows // n_head // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def llama3_divisors(rope, head_dim):
    """rope_freqs.weight for rope_type llama3 (Llama 3.1 model card): what each inverse frequency is divided by."""
    inv_freq = 1.0 / rope["rope_theta"] ** (np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
    wavelength = 2 * np.pi / inv_freq
    low = rope["original_max_position_embeddings"] / rope["low_freq_factor"]
    high = rope["original_max_position_embeddings"] / rope["high_freq_factor"]
    smooth = (rope["original_max_position_embeddings"] / wavelength - rope["low_freq_factor"]) / (
        rope["high_freq_factor"] - rope["low_freq_factor"])
    between = 1.0 / ((1 - smooth) / rope["factor"] + smooth)
    divisors = np.where(wavelength < high, 1.0, np.where(wavelength > low, rope["factor"], between))
    assert len(set(divisors)) >= 3, "the test wants divisors of all three kinds"
    return divisors.astype(np.float32)


LLAMA_NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
               "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
               "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
GEMMA3_NAMES = {**LLAMA_NAMES, "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
                "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
                "post_feedforward_layernorm": "post_ffw_norm"}


def gguf_name(name, names):
    """GGUF's name for a transformers parameter."""
    top = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
           "lm_head.weight": "output.weight"}
    if name in top:
        return top[name]
    _, _, layer, rest = name.split(".", 3)
    return f"blk.{layer}.{names[rest.removesuffix('.weight')]}.weight"


def write_common(w, config, head_dim):
    w.add_context_length(config.max_position_embeddings)
    w.add_embedding_length(config.hidden_size)
    w.add_block_count(config.num_hidden_layers)
    w.add_feed_forward_length(config.intermediate_size)
    w.add_head_count(config.num_attention_heads)
    w.add_head_count_kv(config.num_key_value_heads)
    w.add_key_length(head_dim)
    w.add_value_length(head_dim)
    w.add_layer_norm_rms_eps(config.rms_norm_eps)
    w.add_vocab_size(config.vocab_size)
    w.add_file_type(gguf.LlamaFileType.ALL_F32)


def write_gguf(path, arch, config, model, describe):
    w = gguf.GGUFWriter(path, arch)
    w.add_name(os.path.basename(path).removesuffix(".gguf"))
    describe(w)
    for name, p in model.named_parameters():
        x = p.detach().numpy()
        if arch == "llama" and "q_proj" in name:
            x = permute(x, config.num_attention_heads)
        if arch == "llama" and "k_proj" in name:
            x = permute(x, config.num_key_value_heads)
        if arch == "gemma3" and x.ndim == 1:
            x = x + np.float32(1)
        w.add_tensor(gguf_name(name, LLAMA_NAMES if arch == "llama" else GEMMA3_NAMES), np.ascontiguousarray(x))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()
    assert os.path.getsize(path) < 1_000_000


def write_logits(path, model, first_token, seed):
    tokens = np.random.default_rng(seed).integers(3, N_VOCAB, N_TOKENS).astype(np.int32)
    tokens[0] = first_token
    tokens[40:50] = tokens[10:20]  # a repetition, so that attention has something to find
    ids = torch.from_numpy(tokens.astype(np.int64))[None]
    with torch.no_grad():
        hidden = model.model(ids).last_hidden_state[0]
        logits = model(ids).logits[0]
        exact = model.double()(ids).logits[0]
    logprob = torch.log_softmax(logits.double(), -1)
    p = logprob.exp()
    print(f"{path}: logit std {logits.std():.2f}, entropy {-(p * logprob).sum(-1).mean():.2f} nats, "
          f"float32 is within {(logits - exact).abs().max():.1e} of float64")
    for name, rows in [(path, logits), (path.removesuffix(".logits") + ".hidden", hidden)]:
        with open(name, "wb") as f:
            f.write(np.array(rows.shape, dtype="<u4").tobytes() + tokens.astype("<i4").tobytes())
            f.write(rows.numpy().astype("<f4").tobytes())


KEPT_TOKENS, PERIOD, OBSERVED, BLOCK = 400, 128, 32, 16
KEPT_POSITIONS = [127, 128, 200, 255, 256, 330, 384, 399]
KEPT_SETTINGS = [(4, 40, 0), (4, 20, 40)]


def run_masked(model, ids, visible):
    """Logits, and each full layer's attention, where row i sees the positions visible[i]."""
    n = len(ids)

    def bias(seen):
        return torch.zeros(1, 1, n, n, dtype=torch.float64).masked_fill(~seen, torch.finfo(torch.float64).min)

    kinds = getattr(model.config, "layer_types", None) or ["full_attention"] * model.config.num_hidden_layers
    mask = bias(visible[:n, :n])
    if "sliding_attention" in kinds:
        distance = torch.arange(n)[:, None] - torch.arange(n)[None]
        window = (distance >= 0) & (distance < model.config.sliding_window)
        mask = {"full_attention": mask, "sliding_attention": bias(window)}
    with torch.no_grad():
        out = model(ids[None], attention_mask=mask, output_attentions=True, use_cache=False)
    return out.logits[0], [a[0] for a, kind in zip(out.attentions, kinds) if kind == "full_attention"]


def keep_some(model, ids, sinks, recent, heavy):
    """What each row sees where only some blocks are kept, by the rules of src/engine/keep.h."""
    n, kept = len(ids), sinks + recent + heavy
    visible = torch.tril(torch.ones(n, n, dtype=torch.bool))
    held, mass, gap = [], torch.zeros(n // BLOCK + 1, dtype=torch.float64), float("inf")
    for end in range(PERIOD, n, PERIOD):
        held += range((end - PERIOD) // BLOCK, end // BLOCK)
        n_out = len(held) - kept
        if n_out <= 0:
            continue
        between = held[sinks:len(held) - recent]
        if heavy:
            _, attentions = run_masked(model, ids[:end], visible)
            for a in attentions:
                drawn = a[:, end - OBSERVED:].double().sum((0, 1))
                mass[:end // BLOCK] += drawn.reshape(-1, BLOCK).sum(1)
            between.sort(key=lambda b: (float(mass[b]), b))
            gap = min(gap, float(mass[between[n_out]] / mass[between[n_out - 1]]) - 1)
            mass /= 2
        for b in between[:n_out]:
            held.remove(b)
            visible[end:, b * BLOCK:(b + 1) * BLOCK] = False
    return visible, gap


def write_kept(path, model, seed):
    """u32 n_tokens, n_vocab, n_positions, n_settings; i32 token[n_tokens]; u32 position[n_positions]; for each setting
    of --kv-keep u32 sinks, recent, heavy and f32 logit[n_positions][n_vocab]. The model is in float64 by now."""
    tokens = np.random.default_rng(seed).integers(3, N_VOCAB, KEPT_TOKENS).astype("<i4")
    ids = torch.from_numpy(tokens.astype(np.int64))
    full, _ = run_masked(model, ids, torch.tril(torch.ones(KEPT_TOKENS, KEPT_TOKENS, dtype=torch.bool)))
    with open(path, "wb") as f:
        f.write(np.array([KEPT_TOKENS, N_VOCAB, len(KEPT_POSITIONS), len(KEPT_SETTINGS)], dtype="<u4").tobytes())
        f.write(tokens.tobytes() + np.array(KEPT_POSITIONS, dtype="<u4").tobytes())
        for setting in KEPT_SETTINGS:
            visible, gap = keep_some(model, ids, *(-(-n // BLOCK) for n in setting))
            logits, _ = run_masked(model, ids, visible)
            change = (logits - full).abs().max(-1).values
            print(f"{path}: {setting}: {int(visible[-1].sum())} of {KEPT_TOKENS} tokens seen at the end, logits change "
                  f"by up to {change[128:].max():.2f}; the nearest choice by attention: {100 * gap:.2f} % apart")
            f.write(np.array(setting, dtype="<u4").tobytes())
            f.write(logits[KEPT_POSITIONS].numpy().astype("<f4").tobytes())


def make_llama(folder):
    """Tied embeddings, three query heads to one key and value head."""
    config = LlamaConfig(vocab_size=N_VOCAB, hidden_size=96, intermediate_size=160, num_hidden_layers=3,
                         num_attention_heads=3, num_key_value_heads=1, max_position_embeddings=256, rms_norm_eps=1e-5,
                         rope_parameters={"rope_type": "default", "rope_theta": 10000.0}, tie_word_embeddings=True,
                         attn_implementation="eager")
    model = LlamaForCausalLM(config).eval()
    randomise(model, 1, 0.25, 1.0)

    def describe(w):
        write_common(w, config, 32)
        w.add_rope_dimension_count(32)
        w.add_rope_freq_base(10000.0)
        write_bpe_vocab(w, "smollm", add_bos=False)

    write_gguf(f"{folder}/tiny_llama.gguf", "llama", config, model, describe)
    write_logits(f"{folder}/tiny_llama.logits", model, 1, 11)
    write_kept(f"{folder}/tiny_llama.kept", model, 21)


def make_llama31(folder):
    """Untied output matrix, two query heads to a key and value head, Llama 3.1's frequency divisors."""
    rope = {"rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0,
            "high_freq_factor": 4.0, "original_max_position_embeddings": 64}
    config = LlamaConfig(vocab_size=N_VOCAB, hidden_size=64, intermediate_size=192, num_hidden_layers=3,
                         num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512, rms_norm_eps=1e-5,
                         rope_parameters=rope, tie_word_embeddings=False, attn_implementation="eager")
    model = LlamaForCausalLM(config).eval()
    randomise(model, 2, 1.0, 1.0)

    def describe(w):
        write_common(w, config, 16)
        w.add_rope_dimension_count(16)
        w.add_rope_freq_base(10000.0)
        write_bpe_vocab(w, "llama-bpe", add_bos=True)
        w.add_tensor("rope_freqs.weight", llama3_divisors(rope, 16))

    write_gguf(f"{folder}/tiny_llama31.gguf", "llama", config, model, describe)
    write_logits(f"{folder}/tiny_llama31.logits", model, 1, 12)
    write_kept(f"{folder}/tiny_llama31.kept", model, 22)


def make_gemma3(folder):
    """Seven layers, all but the sixth with a window of 16 tokens; heads wider than hidden size / heads."""
    config = Gemma3TextConfig(vocab_size=N_VOCAB, hidden_size=64, intermediate_size=32, num_hidden_layers=7,
                              num_attention_heads=4, num_key_value_heads=1, head_dim=32, max_position_embeddings=256,
                              sliding_window=16, query_pre_attn_scalar=32, rms_norm_eps=1e-6,
                              attn_implementation="eager")
    model = Gemma3ForCausalLM(config).eval()
    randomise(model, 3, 0.3, 0.0)

    def describe(w):
        write_common(w, config, 32)
        w.add_rope_freq_base(1000000.0)
        w.add_sliding_window(16)
        write_spm_vocab(w)

    write_gguf(f"{folder}/tiny_gemma3.gguf", "gemma3", config, model, describe)
    write_logits(f"{folder}/tiny_gemma3.logits", model, 2, 13)
    write_kept(f"{folder}/tiny_gemma3.kept", model, 23)


def main():
    torch.set_num_threads(1)
    folder = sys.argv[1] if len(sys.argv) > 1 else "tests/golden"
    make_llama(folder)
    make_llama31(folder)
    make_gemma3(folder)


if __name__ == "__main__":
    main()
