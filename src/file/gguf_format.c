#include "file/gguf_format.h"

#include "base/checked.h"
#include "base/utf8.h"

uint32_t sl_gguf_kind_bytes(uint32_t kind)
{
    static const uint8_t sizes[] = {
        [SL_GGUF_U8] = 1,  [SL_GGUF_I8] = 1,  [SL_GGUF_U16] = 2, [SL_GGUF_I16] = 2,
        [SL_GGUF_U32] = 4, [SL_GGUF_I32] = 4, [SL_GGUF_F32] = 4, [SL_GGUF_BOOL] = 1,
        [SL_GGUF_U64] = 8, [SL_GGUF_I64] = 8, [SL_GGUF_F64] = 8,
    };
    return kind < SL_COUNTOF(sizes) ? sizes[kind] : 0;
}

sl_status sl_gguf_check_name(const char *what, const char *bytes, size_t n_bytes, size_t max_bytes, sl_err *err)
{
    if (!n_bytes)
        SL_FAIL(err, SL_ERR_FORMAT, "an empty %s", what);
    if (n_bytes > max_bytes)
        SL_FAIL(err, SL_ERR_FORMAT, "a %s of %zu bytes, more than the %zu allowed", what, n_bytes, max_bytes);
    bool clean = sl_utf8_valid(bytes, n_bytes);
    for (size_t i = 0; clean && i < n_bytes; i++)
        clean = (unsigned char)bytes[i] >= 0x20 && bytes[i] != 0x7f;
    if (!clean)
        SL_FAIL(err, SL_ERR_FORMAT, "a %s with control characters or broken UTF-8", what);
    return SL_OK;
}

sl_status sl_gguf_check_alignment(uint32_t alignment, sl_err *err)
{
    if (alignment < SL_GGUF_MIN_ALIGNMENT || alignment > SL_GGUF_MAX_ALIGNMENT || (alignment & (alignment - 1)))
        SL_FAIL(err, SL_ERR_FORMAT, "general.alignment is %u, not a power of two from %d to %d", alignment,
                SL_GGUF_MIN_ALIGNMENT, SL_GGUF_MAX_ALIGNMENT);
    return SL_OK;
}

sl_status sl_gguf_size_tensor(sl_gguf_tensor *tensor, sl_err *err)
{
    tensor->n_elems = 1;
    for (uint32_t d = 0; d < 4; d++) {
        if (!tensor->ne[d])
            SL_FAIL(err, SL_ERR_FORMAT, "tensor '%s' has a dimension of 0", tensor->name);
        if (!sl_mul_u64(tensor->n_elems, tensor->ne[d], &tensor->n_elems) || tensor->n_elems > INT64_MAX)
            SL_FAIL(err, SL_ERR_FORMAT, "tensor '%s' has more elements than 63 bits count", tensor->name);
    }
    if (tensor->ne[0] % tensor->info->block_elems)
        SL_FAIL(err, SL_ERR_FORMAT, "tensor '%s' has rows of %llu, not a multiple of the %u of %s", tensor->name,
                (unsigned long long)tensor->ne[0], tensor->info->block_elems, tensor->info->name);
    if (!sl_mul_u64(tensor->n_elems / tensor->info->block_elems, tensor->info->block_bytes, &tensor->n_bytes) ||
        tensor->n_bytes > INT64_MAX)
        SL_FAIL(err, SL_ERR_FORMAT, "tensor '%s' has more bytes than 63 bits count", tensor->name);
    return SL_OK;
}
