/* The JSON of /v1/embeddings. */
#include "serve/server_impl.h"

#include <string.h>

/* RFC 4648 base64 of the floats' bytes, little endian, as OpenAI's clients read them. */
static void add_base64(sl_textbuf *out, const float *numbers, uint32_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint32_t bits = 0, n_bits = 0, n_digits = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t word;
        memcpy(&word, &numbers[i], sizeof word);
        for (int k = 0; k < 4; k++, word >>= 8) {
            bits = bits << 8 | (word & 0xff);
            for (n_bits += 8; n_bits >= 6; n_digits++)
                sl_textbuf_add(out, &digits[bits >> (n_bits -= 6) & 63], 1);
        }
    }
    if (n_bits > 0)
        sl_textbuf_add(out, &digits[bits << (6 - n_bits) & 63], 1);
    for (n_digits += n_bits > 0; n_digits % 4 != 0; n_digits++)
        sl_textbuf_text(out, "=");
}

void sl_reply_embedding(sl_choice *choice, const float *embedding, uint32_t n)
{
    sl_textbuf *out = &choice->text;
    sl_textbuf_format(out, "{\"object\":\"embedding\",\"index\":%u,\"embedding\":", choice->index);
    if (choice->call->request.base64) {
        sl_textbuf_text(out, "\"");
        add_base64(out, embedding, n);
        sl_textbuf_text(out, "\"}");
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        sl_textbuf_format(out, "%s%.9g", i ? "," : "[", (double)embedding[i]);
    sl_textbuf_text(out, "]}");
}

void sl_reply_embeddings(sl_call *call)
{
    sl_textbuf *out = &call->chunk;
    const char *model = call->request.model[0] ? call->request.model : call->server->options.model;
    unsigned long long n_tokens = 0;
    bool failed = false;
    sl_textbuf_text(out, "{\"object\":\"list\",\"data\":[");
    for (uint32_t i = 0; i < call->n_choices; i++) {
        sl_choice *choice = &call->choices[i];
        sl_textbuf_text(out, i ? "," : "");
        sl_textbuf_add(out, choice->text.bytes, choice->text.n_bytes);
        failed |= choice->text.failed;
        sl_textbuf_free(&choice->text); /* never twice as much as needed */
        n_tokens += choice->end.n_prompt;
    }
    sl_textbuf_text(out, "],\"model\":");
    sl_textbuf_json(out, model, strlen(model));
    sl_textbuf_format(out, ",\"usage\":{\"prompt_tokens\":%llu,\"total_tokens\":%llu}}\n", n_tokens, n_tokens);
    sl_reply_whole(call, failed || out->failed);
}
