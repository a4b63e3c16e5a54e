#include "app/bundle.h"

#include "app/cost_cache.h"
#include "app/gguf_vocab.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sl_bundle {
    sl_gguf *gguf;
    sl_vocab *vocab;
    sl_token_bytes token_bytes;
    sl_template *chat; /* NULL: none that can be used */
    sl_err chat_error; /* why there is none */
    sl_threads *threads;
    sl_model *model;
    uint32_t *stop_tokens;
    size_t n_stop_tokens;
    sl_pack_cache_options cache; /* its folder is the bundle's */
};

sl_bundle_options sl_bundle_options_default(void)
{
    return (sl_bundle_options){.model = sl_model_options_default()};
}

/* Templates for files that bring none, chosen by the turn tokens their vocabulary has. Sources: the ChatML format of
 * OpenAI's announcement; the Gemma formatting page, which has no system role: its text opens the first user turn. */
static const struct {
    const char *needs; /* a token of the vocabulary */
    const char *source;
} builtin_templates[] = {
    {"<|im_start|>",
     "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
     "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"},
    {"<start_of_turn>",
     "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{% set system = messages[0]['content'] + '\n\n' %}"
     "{% set turns = messages[1:] %}{% else %}{% set system = '' %}{% set turns = messages %}{% endif %}"
     "{% for message in turns %}<start_of_turn>{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n"
     "{{ system if loop.first else '' }}{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
     "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"},
};

static void open_template(sl_bundle *bundle)
{
    const sl_gguf_value *value = sl_gguf_find(bundle->gguf, "tokenizer.chat_template");
    if (value && value->kind == SL_GGUF_STRING) {
        if (sl_template_open(value->strings[0].bytes, value->strings[0].n_bytes, &bundle->chat, &bundle->chat_error) !=
            SL_OK)
            bundle->chat = NULL;
        return;
    }
    for (size_t i = 0; i < SL_COUNTOF(builtin_templates); i++) {
        const char *token = builtin_templates[i].needs, *source = builtin_templates[i].source;
        if (sl_vocab_find(bundle->vocab, (sl_bytes){token, strlen(token)}) < 0)
            continue;
        if (sl_template_open(source, strlen(source), &bundle->chat, &bundle->chat_error) != SL_OK)
            bundle->chat = NULL;
        return;
    }
    sl_err_set(&bundle->chat_error, SL_ERR_UNSUPPORTED, "the file has no chat template");
}

static sl_status find_stop_tokens(sl_bundle *bundle, sl_err *err)
{
    uint32_t n = sl_vocab_n_tokens(bundle->vocab);
    for (int pass = 0; pass < 2; pass++) {
        size_t count = 0;
        for (uint32_t i = 0; i < n; i++) {
            if (!sl_vocab_is_end(bundle->vocab, i))
                continue;
            if (pass)
                bundle->stop_tokens[count] = i;
            count++;
        }
        bundle->n_stop_tokens = count;
        if (pass == 0 && !(bundle->stop_tokens = calloc(count + 1, sizeof *bundle->stop_tokens)))
            SL_FAIL(err, SL_ERR_NOMEM, "no memory for the list of end tokens");
    }
    return SL_OK;
}

static void make_token_bytes(sl_bundle *bundle)
{
    sl_token_bytes *table = &bundle->token_bytes;
    table->n_tokens = sl_vocab_n_tokens(bundle->vocab);
    sl_vocab_all_bytes(bundle->vocab, &table->bytes, &table->offsets);
    for (uint32_t i = 0; i < table->n_tokens; i++)
        table->longest = SL_MAX(table->longest, table->offsets[i + 1] - table->offsets[i]);
}

static sl_status open_model(sl_bundle *bundle, const sl_bundle_options *options, sl_err *err)
{
    sl_model_options model = options->model;
    if (options->flags & SL_BUNDLE_NO_WEIGHTS)
        model.flags |= SL_MODEL_NO_WEIGHTS;
    SL_TRY(sl_threads_open(options->n_threads, &bundle->threads, err));
    if (options->pin)
        SL_TRY(sl_threads_pin(bundle->threads, err));
    SL_TRY(sl_model_open(bundle->gguf, &model, bundle->threads, &bundle->model, err));
    uint32_t rows = sl_model_get_info(bundle->model)->n_vocab, tokens = sl_vocab_n_tokens(bundle->vocab);
    if (tokens > rows)
        SL_FAIL(err, SL_ERR_FORMAT, "the vocabulary has %u tokens, but the embedding matrix only %u rows", tokens,
                rows);
    return SL_OK;
}

static sl_status open_parts(sl_bundle *bundle, const char *path, const sl_bundle_options *options, sl_err *err)
{
    bundle->cache = options->model.cache;
    if (bundle->cache.folder && !(bundle->cache.folder = strdup(bundle->cache.folder)))
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a model bundle");
    SL_TRY(sl_gguf_open(path, options->flags & SL_BUNDLE_TEXT_ONLY ? SL_GGUF_HEADER_ONLY : 0, &bundle->gguf, err));
    SL_TRY(sl_gguf_vocab_open(bundle->gguf, &bundle->vocab, err));
    make_token_bytes(bundle);
    open_template(bundle);
    SL_TRY(find_stop_tokens(bundle, err));
    if (options->flags & SL_BUNDLE_TEXT_ONLY)
        return SL_OK;
    return open_model(bundle, options, err);
}

sl_status sl_bundle_open(const char *path, const sl_bundle_options *options, sl_bundle **out, sl_err *err)
{
    *out = NULL;
    sl_bundle *bundle = calloc(1, sizeof *bundle);
    if (!bundle)
        SL_FAIL(err, SL_ERR_NOMEM, "no memory for a model bundle");
    sl_status status = open_parts(bundle, path, options, err);
    if (status != SL_OK) {
        sl_bundle_close(bundle);
        return status;
    }
    *out = bundle;
    return SL_OK;
}

void sl_bundle_close(sl_bundle *bundle)
{
    if (!bundle)
        return;
    sl_model_close(bundle->model);
    sl_threads_close(bundle->threads);
    sl_template_close(bundle->chat);
    sl_vocab_close(bundle->vocab);
    sl_gguf_close(bundle->gguf);
    free(bundle->stop_tokens);
    free((char *)(uintptr_t)bundle->cache.folder);
    free(bundle);
}

const sl_gguf *sl_bundle_gguf(const sl_bundle *bundle)
{
    return bundle->gguf;
}

const sl_vocab *sl_bundle_vocab(const sl_bundle *bundle)
{
    return bundle->vocab;
}

const sl_model *sl_bundle_model(const sl_bundle *bundle)
{
    return bundle->model;
}

sl_threads *sl_bundle_threads(const sl_bundle *bundle)
{
    return bundle->threads;
}

sl_status sl_bundle_open_engine(const sl_bundle *bundle, const sl_engine_options *options, sl_engine **out, sl_err *err)
{
    sl_engine_options with_cost = *options;
    sl_engine_model model = sl_engine_model_of(bundle->model);
    sl_cost cost;
    sl_cost_init(&cost, model.plan, sl_threads_count(bundle->threads));
    if (!options->cost && sl_cost_cache_load(&bundle->cache, &cost))
        with_cost.cost = &cost;
    return sl_engine_open(&model, &with_cost, bundle->threads, out, err);
}

void sl_bundle_close_engine(const sl_bundle *bundle, sl_engine *engine)
{
    if (engine)
        sl_bundle_save_cost(bundle, sl_engine_cost(engine));
    sl_engine_close(engine);
}

void sl_bundle_save_cost(const sl_bundle *bundle, const sl_cost *cost)
{
    sl_cost_cache_save(&bundle->cache, cost);
}

/* Stored text of a special token as a C string in buffer; empty when there is none. */
static const char *token_text(const sl_vocab *vocab, int64_t token, char *buffer, size_t n_bytes)
{
    sl_bytes text = {"", 0};
    if (token >= 0)
        text = sl_vocab_stored_text(vocab, (uint32_t)token);
    size_t n = SL_MIN(text.n_bytes, n_bytes - 1);
    memcpy(buffer, text.bytes, n);
    buffer[n] = '\0';
    return buffer;
}

sl_status sl_bundle_chat_tokens(const sl_bundle *bundle, const sl_message *messages, size_t n_messages, sl_tokens *out,
                                sl_err *err)
{
    if (!bundle->chat)
        SL_FAIL(err, SL_ERR_UNSUPPORTED, "no chat template can be used (%.160s): try --raw",
                bundle->chat_error.message);
    char bos[256], eos[256];
    const sl_vocab *vocab = bundle->vocab;
    sl_template_vars vars = {
        .messages = messages,
        .n_messages = n_messages,
        .add_generation_prompt = true,
        .bos_token = token_text(vocab, sl_vocab_bos(vocab), bos, sizeof bos),
        .eos_token = token_text(vocab, sl_vocab_eos(vocab), eos, sizeof eos),
    };
    sl_prompt prompt;
    SL_TRY(sl_template_render(bundle->chat, &vars, &prompt, err));
    sl_status status = sl_tokenize(vocab, prompt.spans, prompt.n_spans, SL_TOKENIZE_ADD_SPECIAL, out, err);
    sl_prompt_free(&prompt);
    return status;
}

sl_status sl_bundle_text_tokens(const sl_bundle *bundle, const char *text, size_t n_bytes, sl_tokens *out, sl_err *err)
{
    sl_span span = {.bytes = text, .n_bytes = n_bytes, .trusted = false};
    return sl_tokenize(bundle->vocab, &span, 1, SL_TOKENIZE_ADD_SPECIAL, out, err);
}

sl_pooling sl_bundle_pooling(const sl_bundle *bundle)
{
    /* llama.cpp's numbers of the key */
    static const sl_pooling types[] = {SL_POOLING_MEAN, SL_POOLING_MEAN, SL_POOLING_CLS, SL_POOLING_LAST};
    char key[96];
    uint64_t type = 0;
    snprintf(key, sizeof key, "%s.pooling_type", sl_model_get_info(bundle->model)->arch);
    const sl_gguf_value *value = sl_gguf_find(bundle->gguf, key);
    if (!value || !sl_gguf_as_u64(value, 0, &type) || type >= SL_COUNTOF(types))
        return SL_POOLING_MEAN;
    return types[type];
}

const sl_token_bytes *sl_bundle_token_bytes(const sl_bundle *bundle)
{
    return &bundle->token_bytes;
}

size_t sl_bundle_stop_tokens(const sl_bundle *bundle, const uint32_t **ids)
{
    *ids = bundle->stop_tokens;
    return bundle->n_stop_tokens;
}
