/* `sluice info`: what a GGUF file holds and what it takes to run it. */
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/kv_args.h"
#include "cli/model_args.h"
#include "cli/output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TEXT_COLUMNS = 60, /* longest string shown in the table of metadata */
    SHOWN_ELEMS = 4,   /* of an array, in the table */
    JSON_ELEMS = 64,   /* longest array that --json prints whole */
};

/* Everything that is known about the file; model is NULL when it can't be run, and why says why. */
typedef struct {
    sl_gguf *gguf;
    sl_model *model;
    sl_threads *pool;
    sl_err why;
    sl_engine_options engine;
    sl_engine_memory memory;
    sl_kv_choice kv; /* that other commands would make for these sequences now; nothing where memory is short */
} facts;

static const char *kind_name(sl_gguf_kind kind)
{
    static const char *const names[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                        "bool", "string", "array", "u64", "i64", "f64"};
    return (size_t)kind < SL_COUNTOF(names) ? names[kind] : "?";
}

/* A string in quotes on one line, cut at TEXT_COLUMNS bytes. */
static void print_string(sl_gguf_string string)
{
    sl_out_text("\"");
    for (size_t i = 0; i < string.n_bytes; i++) {
        if (i >= TEXT_COLUMNS && (string.bytes[i] & 0xc0) != 0x80) {
            sl_out_printf("\"... (%zu bytes)", string.n_bytes);
            return;
        }
        unsigned char c = (unsigned char)string.bytes[i];
        if (c == '\n')
            sl_out_text("\\n");
        else if (c < 0x20 || c == 0x7f)
            sl_out_printf("\\x%02x", c);
        else
            sl_out_bytes(string.bytes + i, 1);
    }
    sl_out_text("\"");
}

static void print_element(const sl_gguf_value *value, uint64_t index)
{
    int64_t i64;
    uint64_t u64;
    double f64;
    if (value->elem_kind == SL_GGUF_STRING)
        print_string(value->strings[index]);
    else if (value->elem_kind == SL_GGUF_BOOL)
        sl_out_text(sl_gguf_as_u64(value, index, &u64) && u64 != 0 ? "true" : "false");
    else if (value->elem_kind != SL_GGUF_F32 && value->elem_kind != SL_GGUF_F64 && sl_gguf_as_u64(value, index, &u64))
        sl_out_printf("%llu", (unsigned long long)u64);
    else if (value->elem_kind != SL_GGUF_F32 && value->elem_kind != SL_GGUF_F64 && sl_gguf_as_i64(value, index, &i64))
        sl_out_printf("%lld", (long long)i64);
    else if (sl_gguf_as_f64(value, index, &f64))
        sl_out_printf("%.9g", f64);
}

static void print_metadata(const sl_gguf *gguf)
{
    sl_out_heading("Metadata");
    for (size_t i = 0; i < sl_gguf_n_values(gguf); i++) {
        const sl_gguf_value *value = sl_gguf_value_at(gguf, i);
        char key[64];
        snprintf(key, sizeof(key), "%.*s", (int)SL_MIN(value->key.n_bytes, sizeof(key) - 1), value->key.bytes);
        sl_out_printf("  ");
        sl_out_foreign(key, strlen(key));
        sl_out_printf("%*s ", (int)(44 - SL_MIN(strlen(key), 44)), "");
        if (value->kind != SL_GGUF_ARRAY) {
            print_element(value, 0);
        } else {
            sl_out_printf("%llu x %s [", (unsigned long long)value->count, kind_name(value->elem_kind));
            for (uint64_t e = 0; e < SL_MIN(value->count, SHOWN_ELEMS); e++) {
                sl_out_text(e > 0 ? ", " : "");
                print_element(value, e);
            }
            sl_out_text(value->count > SHOWN_ELEMS ? ", ...]" : "]");
        }
        sl_out_text("\n");
    }
}

static void print_tensors(const sl_gguf *gguf)
{
    char bytes[32], shape[96];
    sl_out_text("\n");
    sl_out_heading("Tensors");
    for (size_t i = 0; i < sl_gguf_n_tensors(gguf); i++) {
        const sl_gguf_tensor *tensor = sl_gguf_tensor_at(gguf, i);
        int n = 0;
        for (uint32_t d = 0; d < tensor->n_dims; d++)
            n += snprintf(shape + n, sizeof(shape) - (size_t)n, "%s%llu", d > 0 ? " x " : "",
                          (unsigned long long)tensor->ne[d]);
        sl_out_printf("  ");
        sl_out_foreign(tensor->name, strlen(tensor->name));
        sl_out_printf("%*s %-7s %-24s %12s\n", (int)(40 - SL_MIN(strlen(tensor->name), 40)), "", tensor->info->name,
                      shape, sl_format_bytes(tensor->n_bytes, bytes));
    }
}

/* Sums over the tensor table; the reader has checked that they do not overflow. */
static void count_tensors(const sl_gguf *gguf, uint64_t *n_params, uint64_t *n_bytes)
{
    *n_params = *n_bytes = 0;
    for (size_t i = 0; i < sl_gguf_n_tensors(gguf); i++) {
        *n_params += sl_gguf_tensor_at(gguf, i)->n_elems;
        *n_bytes += sl_gguf_tensor_at(gguf, i)->n_bytes;
    }
}

static void print_row(const char *label, uint64_t n_bytes)
{
    char bytes[32];
    sl_out_printf("  %-28s %s\n", label, sl_format_bytes(n_bytes, bytes));
}

static void print_model(const facts *subject)
{
    uint64_t n_params, n_bytes;
    count_tensors(subject->gguf, &n_params, &n_bytes);
    sl_out_text("\n");
    sl_out_heading("Size");
    sl_out_printf("  %-28s %llu (%.1f million)\n", "parameters", (unsigned long long)n_params, (double)n_params / 1e6);
    print_row("weights in the file", n_bytes);
    sl_out_printf("  %-28s %.2f\n", "bits per parameter",
                  n_params > 0 ? 8.0 * (double)n_bytes / (double)n_params : 0.0);
    if (subject->model == NULL) {
        sl_out_text("\n");
        sl_out_heading("Cannot be run");
        sl_out_printf("  %s\n", subject->why.message);
        return;
    }
    const sl_model_info *info = sl_model_get_info(subject->model);
    const sl_engine_memory *memory = &subject->memory;
    sl_out_printf("  %-28s %u layers, %u wide, %u heads (%u for keys and values), vocabulary %u\n", info->arch,
                  info->n_layers, info->n_embd, info->n_heads, info->n_kv_heads, info->n_vocab);
    if (info->window > 0)
        sl_out_printf("  %-28s %u tokens in %u layers\n", "sliding window", info->window, info->n_window_layers);
    sl_out_printf("  %-28s %u tokens\n", "longest context", info->context_length);
    char title[96], text[SL_KV_CHOICE_TEXT];
    snprintf(title, sizeof(title), "Memory for %u sequence%s of %u tokens", subject->engine.n_sequences,
             subject->engine.n_sequences == 1 ? "" : "s", memory->context);
    sl_out_text("\n");
    sl_out_heading(title);
    print_row("packed weights", info->packed_bytes);
    print_row("keys and values", memory->kv_bytes);
    print_row("  of these, per token", info->kv_bytes_per_token);
    print_row("step buffers", memory->step_bytes + memory->scratch_bytes);
    print_row("  of these, logits", memory->logits_bytes);
    print_row("in all", info->packed_bytes + memory->total_bytes);
    sl_out_printf("  %s\n", sl_kv_choice_text(&subject->kv, text));
}

static json_t *element_to_json(const sl_gguf_value *value, uint64_t index)
{
    int64_t i64 = 0;
    uint64_t u64 = 0;
    double f64 = 0;
    if (value->elem_kind == SL_GGUF_STRING)
        return sl_json_text(value->strings[index].bytes, value->strings[index].n_bytes);
    if (value->elem_kind == SL_GGUF_BOOL)
        return json_boolean(sl_gguf_as_u64(value, index, &u64) && u64 != 0);
    if (value->elem_kind == SL_GGUF_F32 || value->elem_kind == SL_GGUF_F64) {
        json_t *real = sl_gguf_as_f64(value, index, &f64) ? json_real(f64) : NULL; /* NULL for an infinity */
        return real != NULL ? real : json_null();
    }
    if (sl_gguf_as_i64(value, index, &i64))
        return json_integer(i64);
    return sl_gguf_as_u64(value, index, &u64) ? json_real((double)u64) : json_null();
}

/* {key: value}; an array of more than JSON_ELEMS elements becomes {"type", "count"}. */
static json_t *metadata_to_json(const sl_gguf *gguf)
{
    json_t *object = json_object();
    for (size_t i = 0; i < sl_gguf_n_values(gguf); i++) {
        const sl_gguf_value *value = sl_gguf_value_at(gguf, i);
        json_t *item = NULL;
        if (value->kind != SL_GGUF_ARRAY) {
            item = element_to_json(value, 0);
        } else if (value->count > JSON_ELEMS) {
            item = json_pack("{s:s, s:I}", "type", kind_name(value->elem_kind), "count", (json_int_t)value->count);
        } else {
            item = json_array();
            for (uint64_t e = 0; e < value->count; e++)
                json_array_append_new(item, element_to_json(value, e));
        }
        json_t *key = sl_json_text(value->key.bytes, value->key.n_bytes);
        json_object_set_new(object, json_string_value(key), item);
        json_decref(key);
    }
    return object;
}

static json_t *tensors_to_json(const sl_gguf *gguf)
{
    json_t *list = json_array();
    for (size_t i = 0; i < sl_gguf_n_tensors(gguf); i++) {
        const sl_gguf_tensor *tensor = sl_gguf_tensor_at(gguf, i);
        json_t *shape = json_array();
        for (uint32_t d = 0; d < tensor->n_dims; d++)
            json_array_append_new(shape, json_integer((json_int_t)tensor->ne[d]));
        json_array_append_new(list, json_pack("{s:o, s:s, s:o, s:I, s:I}", "name",
                                              sl_json_text(tensor->name, strlen(tensor->name)), "type",
                                              tensor->info->name, "shape", shape, "bytes", (json_int_t)tensor->n_bytes,
                                              "offset", (json_int_t)tensor->offset));
    }
    return list;
}

static sl_status print_json(const facts *subject, sl_err *err)
{
    uint64_t n_params, n_bytes;
    count_tensors(subject->gguf, &n_params, &n_bytes);
    json_t *root =
        json_pack("{s:I, s:o, s:o, s:I, s:I, s:b}", "file_bytes", (json_int_t)sl_gguf_file_bytes(subject->gguf),
                  "metadata", metadata_to_json(subject->gguf), "tensors", tensors_to_json(subject->gguf), "n_params",
                  (json_int_t)n_params, "weight_bytes", (json_int_t)n_bytes, "supported", subject->model != NULL);
    if (subject->model == NULL) {
        json_object_set_new(root, "reason", sl_json_text(subject->why.message, strlen(subject->why.message)));
        return sl_out_json(root, err);
    }
    const sl_model_info *info = sl_model_get_info(subject->model);
    const sl_engine_memory *memory = &subject->memory;
    json_object_set_new(root, "model",
                        json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b}", "arch",
                                  info->arch, "n_layers", (json_int_t)info->n_layers, "n_embd",
                                  (json_int_t)info->n_embd, "n_ff", (json_int_t)info->n_ff, "n_heads",
                                  (json_int_t)info->n_heads, "n_kv_heads", (json_int_t)info->n_kv_heads, "head_dim",
                                  (json_int_t)info->head_dim, "n_vocab", (json_int_t)info->n_vocab, "context_length",
                                  (json_int_t)info->context_length, "window", (json_int_t)info->window,
                                  "n_window_layers", (json_int_t)info->n_window_layers, "kv_bytes_per_token",
                                  (json_int_t)info->kv_bytes_per_token, "tied_embeddings", info->tied_embeddings));
    json_object_set_new(
        root, "memory",
        json_pack(
            "{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "sequences", (json_int_t)subject->engine.n_sequences,
            "length", (json_int_t)memory->context, "packed_bytes", (json_int_t)info->packed_bytes, "kv_bytes",
            (json_int_t)memory->kv_bytes, "step_bytes", (json_int_t)memory->step_bytes, "scratch_bytes",
            (json_int_t)memory->scratch_bytes, "logits_bytes", (json_int_t)memory->logits_bytes, "total_bytes",
            (json_int_t)(info->packed_bytes + memory->total_bytes), "kv_chosen_bytes", (json_int_t)subject->kv.kv_bytes,
            "free_bytes", (json_int_t)SL_MIN(subject->kv.free_bytes, (uint64_t)INT64_MAX)));
    return sl_out_json(root, err);
}

static void print_text(void *user, const char *text)
{
    (void)user;
    sl_out_text(text);
}

/* Fills subject's model and memory, or why there is none. Only our own mistakes and lack of memory are errors. */
static sl_status open_model(const sl_args *args, facts *subject, const sl_bundle_options *options, sl_err *err)
{
    sl_model_options model_options = options->model;
    model_options.flags |= SL_MODEL_NO_WEIGHTS;
    sl_status status = sl_threads_open(options->n_threads, &subject->pool, err);
    if (status != SL_OK)
        return status;
    if (sl_model_open(subject->gguf, &model_options, subject->pool, &subject->model, &subject->why) != SL_OK)
        return SL_OK;
    SL_TRY(sl_kv_args_keep(args, &subject->engine.keep, err));
    subject->engine.n_sequences = (uint32_t)sl_args_uint(args, "sequences");
    subject->engine.context = (uint32_t)sl_args_uint(args, "length");
    sl_engine_model model = sl_engine_model_of(subject->model);
    SL_TRY(sl_engine_measure(&model, &subject->engine, sl_threads_count(subject->pool), &subject->memory, err));
    sl_engine_options engine = subject->engine;
    sl_err too_little;
    status = sl_kv_args_choose(args, subject->model, sl_threads_count(subject->pool), sl_memory_free(), &engine,
                               &subject->kv, &too_little);
    return status == SL_OK || status == SL_ERR_NOMEM ? SL_OK : sl_err_set(err, status, "%s", too_little.message);
}

/* Opens the file; of one that is cut short, what there is. */
static sl_status open_file(const char *path, facts *subject, sl_err *err)
{
    sl_status status = sl_gguf_open(path, 0, &subject->gguf, err);
    if (status == SL_ERR_FORMAT && sl_gguf_open(path, SL_GGUF_HEADER_ONLY, &subject->gguf, NULL) == SL_OK) {
        subject->why = *err;
        return SL_OK;
    }
    return status;
}

static sl_status show(const sl_args *args, facts *subject, const char *path, sl_err *err)
{
    sl_bundle_options options;
    SL_TRY(sl_model_args_options(args, NULL, &options, err));
    SL_TRY(open_file(path, subject, err));
    if (sl_args_flag(args, "graph"))
        return sl_model_print_passes(subject->gguf, &options.model, print_text, NULL, err);
    if (subject->why.code == SL_OK)
        SL_TRY(open_model(args, subject, &options, err));
    if (sl_args_flag(args, "json"))
        return print_json(subject, err);
    print_metadata(subject->gguf);
    print_tensors(subject->gguf);
    print_model(subject);
    return SL_OK;
}

static sl_status run(const sl_args *args, sl_err *err)
{
    char *path = NULL;
    facts subject = {0};
    if (sl_args_flag(args, "graph") && sl_args_flag(args, "json"))
        SL_FAIL(err, SL_ERR_ARGUMENT, "info prints --graph as text only, without --json");
    SL_TRY(sl_model_args_path(args, args->n_operands > 0 ? args->operands[0] : NULL, &path, err));
    sl_status status = show(args, &subject, path, err);
    sl_model_close(subject.model);
    sl_threads_close(subject.pool);
    sl_gguf_close(subject.gguf);
    free(path);
    return status;
}

static const sl_option options[] = {
    SL_OPT_MODEL,
    {.name = "sequences",
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .min = 1,
     .max = 65536,
     .fallback = "1",
     .help = "sequences that the memory is reckoned for"},
    {.name = "length",
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .min = 0,
     .max = 16777216,
     .fallback = "0",
     .help = "tokens of each sequence; 0 = the model's longest context"},
    {.name = "graph", .kind = SL_OPTION_FLAG, .help = "print the graph as built and after each pass instead"},
    SL_OPT_KV_TYPE,
    SL_OPT_KV_MEMORY,
    SL_OPT_KV_KEEP,
    SL_OPT_LEVEL,
    SL_OPTS_THREADS,
    SL_OPT_JSON,
};

const sl_command sl_cmd_info = {
    .name = "info",
    .summary = "show what a model file holds and the memory it needs",
    .operands = "[MODEL]",
    .description =
        "Prints metadata, tensors, parameters, and the memory that the given number of sequences takes. Files "
        "of unknown architectures are shown as far as they can be read.",
    .examples = "sluice info smollm2\nsluice info smollm2 --sequences 16 --length 2048\nsluice info smollm2 --graph",
    .options = options,
    .n_options = SL_COUNTOF(options),
    .max_operands = 1,
    .complete = SL_COMPLETE_MODEL,
    .run = run,
};
