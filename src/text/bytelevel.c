#include "text/bytelevel.h"

#include <string.h>

#include "base/utf8.h"

/* Byte of a character of the alphabet; -1 for any other. GPT-2's encoder.py (bytes_to_unicode): printable Latin-1
 * stands for itself, the other 68 bytes are U+0100 and up in rising order. */
static int byte_of(uint32_t code_point)
{
    if ((code_point >= 0x21 && code_point <= 0x7e) || (code_point >= 0xa1 && code_point <= 0xff && code_point != 0xad))
        return (int)code_point;
    if (code_point < 0x100)
        return -1;
    uint32_t i = code_point - 0x100;
    if (i <= 0x20)
        return (int)i;
    if (i <= 0x42)
        return (int)(i - 0x21 + 0x7f);
    return i == 0x43 ? 0xad : -1;
}

size_t sl_bytelevel_decode(const char *stored, size_t n_bytes, char *out)
{
    size_t n_out = 0;
    for (size_t at = 0; at < n_bytes;) {
        uint32_t code_point;
        int length = sl_utf8_decode(stored + at, n_bytes - at, &code_point);
        int byte = length > 0 ? byte_of(code_point) : -1;
        if (byte < 0) {
            memcpy(out, stored, n_bytes);
            return n_bytes;
        }
        out[n_out++] = (char)byte;
        at += (size_t)length;
    }
    return n_out;
}
