#include "text/special.h"

#include <stdlib.h>

static sl_status add_node(sl_special *special, unsigned char byte, uint32_t *out, sl_err *err)
{
    if (special->n_nodes == special->capacity) {
        uint32_t capacity = special->capacity ? special->capacity * 2 : 256;
        sl_special_node *nodes = NULL;
        if (capacity > special->capacity)
            nodes = realloc(special->nodes, (size_t)capacity * sizeof *nodes);
        if (!nodes)
            SL_FAIL(err, SL_ERR_NOMEM, "vocabulary: out of memory");
        special->nodes = nodes;
        special->capacity = capacity;
    }
    *out = special->n_nodes++;
    special->nodes[*out] = (sl_special_node){.control = UINT32_MAX, .user = UINT32_MAX, .byte = byte};
    return SL_OK;
}

static uint32_t find_child(const sl_special *special, uint32_t node, unsigned char byte)
{
    uint32_t child = special->nodes[node].child;
    while (child && special->nodes[child].byte != byte)
        child = special->nodes[child].sibling;
    return child;
}

sl_status sl_special_add(sl_special *special, const char *bytes, size_t n_bytes, uint32_t id, bool is_control,
                         sl_err *err)
{
    uint32_t node = 0, child;
    if (special->n_nodes == 0)
        SL_TRY(add_node(special, 0, &child, err));
    for (size_t i = 0; i < n_bytes; i++) {
        unsigned char byte = (unsigned char)bytes[i];
        child = node == 0 ? special->first[byte] : find_child(special, node, byte);
        if (!child) {
            SL_TRY(add_node(special, byte, &child, err));
            special->nodes[child].sibling = special->nodes[node].child;
            special->nodes[node].child = child;
            if (node == 0)
                special->first[byte] = child;
        }
        node = child;
    }
    uint32_t *slot = is_control ? &special->nodes[node].control : &special->nodes[node].user;
    if (*slot == UINT32_MAX)
        *slot = id;
    special->starts[1][(unsigned char)bytes[0]] = true;
    if (!is_control)
        special->starts[0][(unsigned char)bytes[0]] = true;
    return SL_OK;
}

void sl_special_free(sl_special *special)
{
    free(special->nodes);
    *special = (sl_special){0};
}

/* Longest token that begins at bytes; 0 when there is none. */
static size_t match_here(const sl_special *special, const char *bytes, size_t n_bytes, bool trusted, uint32_t *id)
{
    size_t n_match = 0;
    uint32_t node = special->first[(unsigned char)bytes[0]];
    for (size_t i = 1; node; i++) {
        const sl_special_node *at = &special->nodes[node];
        uint32_t found = trusted && at->control != UINT32_MAX ? at->control : at->user;
        if (found != UINT32_MAX) {
            n_match = i;
            *id = found;
        }
        if (i == n_bytes)
            break;
        node = find_child(special, node, (unsigned char)bytes[i]);
    }
    return n_match;
}

bool sl_special_find(const sl_special *special, const char *bytes, size_t n_bytes, bool trusted, size_t *at,
                     size_t *n_match, uint32_t *id)
{
    const bool *starts = special->starts[trusted];
    if (special->n_nodes == 0)
        return false;
    for (size_t i = 0; i < n_bytes; i++) {
        if (!starts[(unsigned char)bytes[i]])
            continue;
        *n_match = match_here(special, bytes + i, n_bytes - i, trusted, id);
        if (*n_match) {
            *at = i;
            return true;
        }
    }
    return false;
}
