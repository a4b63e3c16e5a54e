#include "base/utf8.h"

int sl_utf8_decode(const char *bytes, size_t n_bytes, uint32_t *code_point)
{
    const unsigned char *s = (const unsigned char *)bytes;
    if (n_bytes == 0)
        return -1;
    unsigned lead = s[0];
    int length;
    unsigned lo = 0x80, hi = 0xbf; /* allowed range of the second byte */
    uint32_t value;
    if (lead < 0x80) {
        if (code_point)
            *code_point = lead;
        return 1;
    } else if (lead >= 0xc2 && lead <= 0xdf) {
        length = 2;
        value = lead & 0x1f;
    } else if (lead >= 0xe0 && lead <= 0xef) {
        length = 3;
        value = lead & 0x0f;
        lo = lead == 0xe0 ? 0xa0 : lo;
        hi = lead == 0xed ? 0x9f : hi;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
        length = 4;
        value = lead & 0x07;
        lo = lead == 0xf0 ? 0x90 : lo;
        hi = lead == 0xf4 ? 0x8f : hi;
    } else {
        return 0;
    }
    for (int i = 1; i < length; i++) {
        if ((size_t)i >= n_bytes)
            return -1;
        if (s[i] < lo || s[i] > hi)
            return 0;
        value = value << 6 | (s[i] & 0x3f);
        lo = 0x80;
        hi = 0xbf;
    }
    if (code_point)
        *code_point = value;
    return length;
}

size_t sl_utf8_encode(uint32_t code_point, char out[4])
{
    if (code_point < 0x80) {
        out[0] = (char)code_point;
        return 1;
    }
    if (code_point < 0x800) {
        out[0] = (char)(0xc0 | code_point >> 6);
        out[1] = (char)(0x80 | (code_point & 0x3f));
        return 2;
    }
    if (code_point < 0x10000) {
        out[0] = (char)(0xe0 | code_point >> 12);
        out[1] = (char)(0x80 | (code_point >> 6 & 0x3f));
        out[2] = (char)(0x80 | (code_point & 0x3f));
        return 3;
    }
    out[0] = (char)(0xf0 | code_point >> 18);
    out[1] = (char)(0x80 | (code_point >> 12 & 0x3f));
    out[2] = (char)(0x80 | (code_point >> 6 & 0x3f));
    out[3] = (char)(0x80 | (code_point & 0x3f));
    return 4;
}

bool sl_utf8_valid(const char *bytes, size_t n_bytes)
{
    for (size_t i = 0; i < n_bytes;) {
        int n = sl_utf8_decode(bytes + i, n_bytes - i, NULL);
        if (n <= 0)
            return false;
        i += (size_t)n;
    }
    return true;
}

size_t sl_utf8_incomplete_tail(const char *bytes, size_t n_bytes)
{
    size_t max = n_bytes < 3 ? n_bytes : 3;
    for (size_t tail = 1; tail <= max; tail++) {
        unsigned char c = (unsigned char)bytes[n_bytes - tail];
        if ((c & 0xc0) == 0x80)
            continue; /* continuation byte: look further back for its lead */
        return sl_utf8_decode(bytes + n_bytes - tail, tail, NULL) == -1 ? tail : 0;
    }
    return 0;
}

size_t sl_utf8_ill_formed(const char *bytes, size_t n_bytes)
{
    size_t length = 1;
    while (length < n_bytes && length < 3 && sl_utf8_decode(bytes, length, NULL) < 0 &&
           sl_utf8_decode(bytes, length + 1, NULL) < 0)
        length++;
    return length;
}
