#include "kernel/ref/ref.h"

static void load_f16(float *dst, const uint16_t *src, size_t n)
{
    for (size_t i = 0; i < n; i++)
        dst[i] = f16_to_f32(src[i]);
}

#include "kernel/ref/attention_tmpl.h"

void SL_REF(sl_attention_rows)(const sl_attention *args, const sl_attention_tile *tile, uint32_t kv_head, void *scratch)
{
    attention_run(args, tile, kv_head, scratch);
}
