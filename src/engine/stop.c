/* One Knuth-Morris-Pratt automaton for each string (Knuth, Morris and Pratt 1977, "Fast pattern matching in strings"),
 * all fed the same bytes. An automaton's state is the length of the longest beginning of its string that the text ends
 * with; the longest of these, over all strings, is what must be held back. */
#include "engine/stop.h"

#include <stdlib.h>
#include <string.h>

struct sl_stop {
    const sl_token_bytes *table;
    uint32_t n_strings;
    sl_bytes strings[SL_MAX_STOP_STRINGS];
    uint16_t *fallback[SL_MAX_STOP_STRINGS]; /* [k] = length of the longest proper border of the first k bytes */
    uint32_t state[SL_MAX_STOP_STRINGS];
    int32_t matched;
    uint32_t n_shown, n_held; /* in the buffer: what the last call showed, then what it held back */
    char *buffer;             /* room for the longest string and the longest token */
    _Alignas(uint16_t) char memory[];
};

static sl_status check_strings(const sl_bytes_list *strings, const sl_token_bytes *table, sl_err *err)
{
    if (strings->n > 0 && !table)
        SL_FAIL(err, SL_ERR_ARGUMENT, "stop strings need an engine that was opened with token bytes");
    if (strings->n > SL_MAX_STOP_STRINGS)
        SL_FAIL(err, SL_ERR_LIMIT, "%zu stop strings: at most %d are possible", strings->n, SL_MAX_STOP_STRINGS);
    for (size_t i = 0; i < strings->n; i++) {
        if (strings->items[i].n_bytes == 0)
            SL_FAIL(err, SL_ERR_ARGUMENT, "stop string %zu is empty", i);
        if (strings->items[i].n_bytes > SL_MAX_STOP_BYTES)
            SL_FAIL(err, SL_ERR_LIMIT, "stop string %zu has %zu bytes: at most %d are possible", i,
                    strings->items[i].n_bytes, SL_MAX_STOP_BYTES);
    }
    return SL_OK;
}

/* State of an automaton after one more byte; the string's length when it is complete. state < length. */
static uint32_t advance(const sl_bytes *string, const uint16_t *fallback, uint32_t state, char byte)
{
    while (state > 0 && string->bytes[state] != byte)
        state = fallback[state];
    return state + (uint32_t)(string->bytes[state] == byte);
}

/* fallback[1 .. length], each from the ones before: the string without its first byte runs through its own automaton. */
static void make_fallback(const sl_bytes *string, uint16_t *fallback)
{
    fallback[0] = fallback[1] = 0;
    for (uint32_t k = 1, state = 0; k < string->n_bytes; k++) {
        state = advance(string, fallback, state, string->bytes[k]);
        fallback[k + 1] = (uint16_t)state;
    }
}

sl_status sl_stop_open(const sl_bytes_list *strings, const sl_token_bytes *table, sl_stop **out, sl_err *err)
{
    *out = NULL;
    SL_TRY(check_strings(strings, table, err));
    if (!table)
        return SL_OK;
    size_t total = 0, longest = 0;
    for (size_t i = 0; i < strings->n; i++) {
        total += strings->items[i].n_bytes;
        longest = SL_MAX(longest, strings->items[i].n_bytes);
    }
    size_t n_fallback = total + strings->n;
    sl_stop *stop = calloc(1, sizeof *stop + n_fallback * sizeof(uint16_t) + total + longest + table->longest);
    if (!stop)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for stop strings");
    stop->table = table;
    stop->n_strings = (uint32_t)strings->n;
    stop->matched = -1;
    uint16_t *fallback = (uint16_t *)(void *)stop->memory;
    char *copy = stop->memory + n_fallback * sizeof(uint16_t);
    for (size_t i = 0; i < strings->n; i++) {
        size_t n = strings->items[i].n_bytes;
        stop->strings[i] = (sl_bytes){memcpy(copy, strings->items[i].bytes, n), n};
        stop->fallback[i] = fallback;
        make_fallback(&stop->strings[i], fallback);
        copy += n;
        fallback += n + 1;
    }
    stop->buffer = copy;
    *out = stop;
    return SL_OK;
}

sl_status sl_stop_clone(const sl_stop *stop, sl_stop **out, sl_err *err)
{
    *out = NULL;
    if (!stop)
        return SL_OK;
    return sl_stop_open(&(sl_bytes_list){stop->strings, stop->n_strings}, stop->table, out, err);
}

void sl_stop_close(sl_stop *stop)
{
    free(stop);
}

/* Feeds one byte to all automata. Length of the longest string that it completes; 0: none. */
static uint32_t feed(sl_stop *stop, char byte, bool may_end)
{
    uint32_t longest = 0;
    for (uint32_t i = 0; i < stop->n_strings; i++) {
        uint32_t state = advance(&stop->strings[i], stop->fallback[i], stop->state[i], byte);
        if (state == stop->strings[i].n_bytes) {
            if (may_end && state > longest) {
                longest = state;
                stop->matched = (int32_t)i;
            }
            state = stop->fallback[i][state];
        }
        stop->state[i] = state;
    }
    return longest;
}

bool sl_stop_push(sl_stop *stop, uint32_t token, bool may_end, sl_bytes *visible)
{
    *visible = (sl_bytes){"", 0};
    if (!stop)
        return false;
    SL_ASSERT(stop->matched < 0);
    sl_bytes piece = sl_token_bytes_at(stop->table, token);
    if (stop->n_strings == 0) {
        *visible = piece;
        return false;
    }
    memmove(stop->buffer, stop->buffer + stop->n_shown, stop->n_held);
    memcpy(stop->buffer + stop->n_held, piece.bytes, piece.n_bytes);
    uint32_t n_all = stop->n_held + (uint32_t)piece.n_bytes;
    for (uint32_t i = stop->n_held; i < n_all; i++) {
        uint32_t n_match = feed(stop, stop->buffer[i], may_end);
        if (n_match == 0)
            continue;
        stop->n_held = 0;
        *visible = (sl_bytes){stop->buffer, i + 1 - n_match};
        return true;
    }
    stop->n_held = 0;
    for (uint32_t i = 0; i < stop->n_strings; i++)
        stop->n_held = SL_MAX(stop->n_held, stop->state[i]);
    stop->n_shown = n_all - stop->n_held;
    *visible = (sl_bytes){stop->buffer, stop->n_shown};
    return false;
}

void sl_stop_finish(sl_stop *stop, sl_bytes *visible)
{
    *visible = (sl_bytes){"", 0};
    if (!stop)
        return;
    *visible = (sl_bytes){stop->buffer + stop->n_shown, stop->n_held};
    stop->n_shown += stop->n_held;
    stop->n_held = 0;
}

int32_t sl_stop_matched(const sl_stop *stop)
{
    return stop ? stop->matched : -1;
}
