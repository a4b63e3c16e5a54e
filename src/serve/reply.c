/* The JSON of answers, written piece by piece as tokens come. Forms: OpenAI's API reference. */
#include "base/utf8.h"
#include "serve/server_impl.h"

#include <string.h>

static bool is_chat(const sl_call *call)
{
    return call->kind == SL_API_CHAT;
}

void sl_reply_head(sl_call *call)
{
    const char *object = !is_chat(call)         ? "text_completion"
                         : call->request.stream ? "chat.completion.chunk"
                                                : "chat.completion";
    sl_textbuf *head = &call->head;
    sl_textbuf_format(head, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%lld,\"model\":", call->id, object,
                      (long long)call->created);
    const char *model = call->request.model[0] ? call->request.model : call->server->options.model;
    sl_textbuf_json(head, model, strlen(model));
    sl_textbuf_format(head, ",\"system_fingerprint\":\"%s\",\"choices\":[", call->server->fingerprint);
}

/* ---- log-probabilities ---- */

static sl_bytes token_text(const sl_call *call, uint32_t token)
{
    const sl_vocab *vocab = sl_bundle_vocab(call->server->bundle);
    sl_bytes text = sl_vocab_bytes(vocab, token);
    return text.n_bytes > 0 ? text : sl_vocab_stored_text(vocab, token);
}

/* A token as a JSON string; one that is part of a character only is written as OpenAI does, "bytes:\xe2\x96". */
static void add_token_string(sl_textbuf *out, sl_bytes text)
{
    if (sl_utf8_valid(text.bytes, text.n_bytes)) {
        sl_textbuf_json(out, text.bytes, text.n_bytes);
        return;
    }
    sl_textbuf_text(out, "\"bytes:");
    for (size_t i = 0; i < text.n_bytes; i++)
        sl_textbuf_format(out, "\\\\x%02x", (unsigned char)text.bytes[i]);
    sl_textbuf_text(out, "\"");
}

/* {"token":…,"logprob":…,"bytes":[…] without the closing brace. */
static void add_chat_token(const sl_call *call, sl_textbuf *out, uint32_t token, float logprob)
{
    sl_bytes text = token_text(call, token);
    sl_textbuf_text(out, "{\"token\":");
    add_token_string(out, text);
    sl_textbuf_text(out, ",\"logprob\":");
    sl_textbuf_logprob(out, logprob);
    sl_textbuf_text(out, ",\"bytes\":[");
    for (size_t i = 0; i < text.n_bytes; i++)
        sl_textbuf_format(out, "%s%u", i ? "," : "", (unsigned char)text.bytes[i]);
    sl_textbuf_text(out, "]");
}

static void add_chat_logprobs(sl_choice *choice, const sl_sampled *sampled)
{
    sl_textbuf *out = &choice->logprobs;
    add_chat_token(choice->call, out, sampled->token, sampled->logprob);
    sl_textbuf_text(out, ",\"top_logprobs\":[");
    for (uint32_t i = 0; i < sampled->n_top; i++) {
        sl_textbuf_text(out, i ? "," : "");
        add_chat_token(choice->call, out, sampled->top[i].token, sampled->top[i].logprob);
        sl_textbuf_text(out, "}");
    }
    sl_textbuf_text(out, "]}");
}

/* A token of the lists and where it begins in the text. */
static void add_listed_token(sl_choice *choice, uint32_t token)
{
    add_token_string(&choice->logprobs, token_text(choice->call, token));
    sl_textbuf_format(&choice->offsets, "%llu", (unsigned long long)choice->n_chars);
}

/* The names of an object that is being written: places in a textbuf. */
typedef struct {
    size_t at[SL_MAX_LOGPROBS + 1], n_bytes[SL_MAX_LOGPROBS + 1];
    uint32_t n;
} names;

/* Adds "token":logprob. Names of a JSON object are unique (RFC 8259 4) and several tokens may have one text: the first one,
 * which is the likeliest, stays. */
static void add_alternative(const sl_call *call, sl_textbuf *out, names *known, uint32_t token, float logprob)
{
    size_t before = out->n_bytes;
    sl_textbuf_text(out, known->n ? "," : "");
    size_t at = out->n_bytes;
    add_token_string(out, token_text(call, token));
    if (out->failed)
        return;
    size_t n_bytes = out->n_bytes - at;
    for (uint32_t i = 0; i < known->n; i++)
        if (known->n_bytes[i] == n_bytes && memcmp(out->bytes + known->at[i], out->bytes + at, n_bytes) == 0) {
            sl_textbuf_cut(out, before);
            return;
        }
    known->at[known->n] = at;
    known->n_bytes[known->n++] = n_bytes;
    sl_textbuf_text(out, ":");
    sl_textbuf_logprob(out, logprob);
}

static void add_completion_logprobs(sl_choice *choice, const sl_sampled *sampled)
{
    const sl_call *call = choice->call;
    add_listed_token(choice, sampled->token);
    sl_textbuf_logprob(&choice->token_logprobs, sampled->logprob);
    sl_textbuf *top = &choice->top_logprobs;
    names known = {.n = 0};
    bool listed = false;
    sl_textbuf_text(top, "{");
    for (uint32_t i = 0; i < sampled->n_top; i++) {
        add_alternative(call, top, &known, sampled->top[i].token, sampled->top[i].logprob);
        listed |= sampled->top[i].token == sampled->token;
    }
    if (!listed) /* the chosen token is always there, or a likelier one with its text */
        add_alternative(call, top, &known, sampled->token, sampled->logprob);
    sl_textbuf_text(top, "}");
}

/* Moves the offset over a token's characters. In a prompt the tokenizer's space is also behind control tokens. */
static void count_chars(sl_choice *choice, uint32_t token, bool of_prompt)
{
    const sl_vocab *vocab = sl_bundle_vocab(choice->call->server->bundle);
    sl_bytes text = sl_vocab_bytes(vocab, token);
    sl_token_type type = sl_vocab_type(vocab, token);
    size_t first = choice->at_start && text.n_bytes > 0 && text.bytes[0] == ' ';
    if (of_prompt && (type == SL_TOKEN_CONTROL || type == SL_TOKEN_USER_DEFINED)) {
        choice->at_start = sl_vocab_adds_space_prefix(vocab);
        first = 0;
    } else if (text.n_bytes > 0) {
        choice->at_start = false;
    }
    for (size_t i = first; i < text.n_bytes; i++)
        choice->n_chars += ((unsigned char)text.bytes[i] & 0xC0) != 0x80;
}

void sl_reply_echo(sl_choice *choice, const sl_tokens *prompt, sl_bytes text)
{
    size_t n_tail = sl_utf8_incomplete_tail(text.bytes, text.n_bytes);
    sl_bytes tail = {text.bytes + text.n_bytes - n_tail, n_tail}, complete;
    sl_textbuf_json_part(&choice->text, text.bytes, text.n_bytes - n_tail);
    if (n_tail > 0 && sl_detok_push_bytes(&choice->detok, tail, &complete, NULL) != SL_OK) /* the answer may end it */
        choice->text.failed = true;
    if (!choice->call->request.logprobs)
        return;
    add_listed_token(choice, prompt->ids[0]);
    sl_textbuf_text(&choice->token_logprobs, "null");
    sl_textbuf_text(&choice->top_logprobs, "null");
    count_chars(choice, prompt->ids[0], true);
}

void sl_reply_token(sl_choice *choice, const sl_sampled *sampled, bool of_prompt)
{
    if (!choice->call->request.logprobs)
        return;
    if (choice->logprobs.n_bytes > 0) {
        sl_textbuf *lists[] = {&choice->logprobs, &choice->token_logprobs, &choice->top_logprobs, &choice->offsets};
        for (size_t i = 0; i < SL_COUNTOF(lists); i++)
            sl_textbuf_text(lists[i], ",");
    }
    if (is_chat(choice->call))
        add_chat_logprobs(choice, sampled);
    else
        add_completion_logprobs(choice, sampled);
    count_chars(choice, sampled->token, of_prompt);
}

static const char *text_of(const sl_textbuf *text)
{
    return text->n_bytes ? text->bytes : "";
}

/* The value of "logprobs"; what is noted is used up. */
static void add_logprobs(sl_choice *choice, sl_textbuf *out)
{
    if (!choice->call->request.logprobs || (choice->call->request.stream && choice->logprobs.n_bytes == 0)) {
        sl_textbuf_text(out, "null");
    } else if (is_chat(choice->call)) {
        sl_textbuf_text(out, "{\"content\":[");
        sl_textbuf_text(out, text_of(&choice->logprobs));
        sl_textbuf_text(out, "],\"refusal\":null}");
    } else {
        sl_textbuf_text(out, "{\"tokens\":[");
        sl_textbuf_text(out, text_of(&choice->logprobs));
        sl_textbuf_text(out, "],\"token_logprobs\":[");
        sl_textbuf_text(out, text_of(&choice->token_logprobs));
        sl_textbuf_text(out, "],\"top_logprobs\":[");
        sl_textbuf_text(out, text_of(&choice->top_logprobs));
        sl_textbuf_text(out, "],\"text_offset\":[");
        sl_textbuf_text(out, text_of(&choice->offsets));
        sl_textbuf_text(out, "]}");
    }
    sl_textbuf_clear(&choice->logprobs);
    sl_textbuf_clear(&choice->token_logprobs);
    sl_textbuf_clear(&choice->top_logprobs);
    sl_textbuf_clear(&choice->offsets);
}

static void add_finish_reason(const sl_choice *choice, sl_textbuf *out)
{
    sl_textbuf_format(out, ",\"finish_reason\":\"%s\"}", sl_finish_name(choice->end.finish));
}

static void add_usage(const sl_call *call, sl_textbuf *out)
{
    unsigned long long prompt = 0, generated = 0, cached = 0;
    for (uint32_t i = 0; i < call->n_choices; i++) {
        const sl_event *end = &call->choices[i].end;
        generated += end->n_generated;
        if (i % call->request.n != 0)
            continue; /* the choices of a prompt share it */
        prompt += end->n_prompt;
        cached += end->n_cached;
    }
    sl_textbuf_format(out,
                      "\"usage\":{\"prompt_tokens\":%llu,\"completion_tokens\":%llu,\"total_tokens\":%llu,"
                      "\"prompt_tokens_details\":{\"cached_tokens\":%llu}}",
                      prompt, generated, prompt + generated, cached);
}

/* ---- streams ---- */

static void begin_chunk(sl_call *call)
{
    sl_textbuf_text(&call->chunk, "data: ");
    sl_textbuf_add(&call->chunk, call->head.bytes, call->head.n_bytes);
}

static void end_chunk(sl_call *call)
{
    sl_textbuf_text(&call->chunk, call->request.include_usage ? "],\"usage\":null}\n\n" : "]}\n\n");
}

void sl_reply_role(sl_choice *choice)
{
    sl_call *call = choice->call;
    if (!is_chat(call))
        return;
    begin_chunk(call);
    sl_textbuf_format(&call->chunk,
                      "{\"index\":%u,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"logprobs\":null,"
                      "\"finish_reason\":null}",
                      choice->index);
    end_chunk(call);
}

void sl_reply_chunk(sl_choice *choice)
{
    sl_call *call = choice->call;
    if (!call->request.stream || (choice->text.n_bytes == 0 && choice->logprobs.n_bytes == 0))
        return;
    begin_chunk(call);
    sl_textbuf_format(&call->chunk,
                      is_chat(call) ? "{\"index\":%u,\"delta\":{\"content\":\"" : "{\"index\":%u,\"text\":\"",
                      choice->index);
    sl_textbuf_text(&call->chunk, text_of(&choice->text));
    sl_textbuf_text(&call->chunk, is_chat(call) ? "\"},\"logprobs\":" : "\",\"logprobs\":");
    add_logprobs(choice, &call->chunk);
    sl_textbuf_text(&call->chunk, ",\"finish_reason\":null}");
    end_chunk(call);
    sl_textbuf_clear(&choice->text);
}

void sl_reply_finish(sl_choice *choice)
{
    sl_call *call = choice->call;
    if (!call->request.stream)
        return;
    sl_reply_chunk(choice);
    begin_chunk(call);
    sl_textbuf_format(&call->chunk,
                      is_chat(call) ? "{\"index\":%u,\"delta\":{},\"logprobs\":null"
                                    : "{\"index\":%u,\"text\":\"\",\"logprobs\":null",
                      choice->index);
    add_finish_reason(choice, &call->chunk);
    end_chunk(call);
}

void sl_reply_send(sl_call *call)
{
    if (call->begun)
        sl_conn_stream(call->conn, call->chunk.bytes, call->chunk.n_bytes);
    call->quiet &= call->chunk.n_bytes == 0;
    sl_textbuf_clear(&call->chunk);
}

void sl_reply_stream_error(sl_call *call, const char *message)
{
    sl_textbuf_text(&call->chunk, "data: {\"error\":{\"message\":");
    sl_textbuf_json(&call->chunk, message, strlen(message));
    sl_textbuf_text(&call->chunk, ",\"type\":\"server_error\",\"param\":null,\"code\":null}}\n\n");
    sl_reply_send(call);
    sl_conn_stream_end(call->conn);
}

/* ---- the end ---- */

/* Uses up what the choice has collected: what is written twice is never held twice for long. */
static void add_whole_choice(sl_choice *choice, sl_textbuf *out)
{
    bool chat = is_chat(choice->call);
    sl_textbuf_format(out, "%s{\"index\":%u,", choice->index ? "," : "", choice->index);
    sl_textbuf_text(out, chat ? "\"message\":{\"role\":\"assistant\",\"content\":\"" : "\"text\":\"");
    sl_textbuf_text(out, text_of(&choice->text));
    sl_textbuf_text(out, chat ? "\",\"refusal\":null},\"logprobs\":" : "\",\"logprobs\":");
    add_logprobs(choice, out);
    add_finish_reason(choice, out);
    sl_textbuf *written[] = {&choice->text, &choice->logprobs, &choice->token_logprobs, &choice->top_logprobs,
                             &choice->offsets};
    for (size_t i = 0; i < SL_COUNTOF(written); i++)
        sl_textbuf_free(written[i]);
}

static bool out_of_memory(const sl_call *call)
{
    bool failed = call->head.failed || call->chunk.failed;
    for (uint32_t i = 0; i < call->n_choices; i++) {
        const sl_choice *c = &call->choices[i];
        failed |= c->text.failed || c->logprobs.failed || c->token_logprobs.failed || c->top_logprobs.failed ||
                  c->offsets.failed;
    }
    return failed;
}

void sl_reply_whole(sl_call *call, bool failed)
{
    char headers[224] = "";
    if (failed) {
        sl_server_refuse(call->server, call->conn, 500, NULL, NULL, 0, "out of memory for the answer");
        return;
    }
    if (call->request.ignored[0])
        snprintf(headers, sizeof headers, "X-Sluice-Ignored-Fields: %s\r\n", call->request.ignored);
    sl_server_count(call->server, 200);
    sl_conn_reply(call->conn, 200, headers, "application/json", call->chunk.bytes, call->chunk.n_bytes);
}

static void send_whole(sl_call *call)
{
    sl_textbuf *out = &call->chunk;
    bool failed = out_of_memory(call);
    sl_textbuf_add(out, call->head.bytes, call->head.n_bytes);
    for (uint32_t i = 0; i < call->n_choices; i++)
        add_whole_choice(&call->choices[i], out);
    sl_textbuf_text(out, "],");
    add_usage(call, out);
    sl_textbuf_text(out, "}\n");
    sl_reply_whole(call, failed || out->failed);
}

void sl_reply_end(sl_call *call)
{
    if (!call->request.stream) {
        send_whole(call);
        return;
    }
    if (out_of_memory(call)) { /* parts of it are missing */
        sl_textbuf_free(&call->chunk);
        sl_reply_stream_error(call, "out of memory for the answer");
        return;
    }
    if (call->request.include_usage) {
        begin_chunk(call);
        sl_textbuf_text(&call->chunk, "],");
        add_usage(call, &call->chunk);
        sl_textbuf_text(&call->chunk, "}\n\n");
    }
    sl_textbuf_text(&call->chunk, "data: [DONE]\n\n");
    sl_reply_send(call);
    sl_conn_stream_end(call->conn);
}
