#include "cli/answer_file.h"

#include "base/clock.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/request_line.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    MAX_AHEAD = 1 << 14, /* answers that wait for one before them to be printed */
    REDRAW_US = 200000
};

/* One line, from when it is its turn to be read until its answer is printed. The engine copies the request. */
typedef struct job {
    size_t line; /* from 1 */
    json_t *id;  /* NULL = none */
    size_t n_prompt;
    sl_generate_options options;
    sl_generation generation;
    sl_answer answer;
    sl_status status;
    sl_err err;
    bool running, done;
} job;

/* Where the next line begins. */
typedef struct lines {
    const sl_input *input;
    size_t at, n_read;
} lines;

typedef struct batch {
    const sl_bundle *bundle;
    const sl_answer_file_options *options;
    sl_engine *engine;
    lines lines;
    size_t n_jobs;
    size_t n_begun, n_printed; /* the jobs before these; a job begins and is printed in order */
    job *window[MAX_AHEAD];    /* those between: number i at i % MAX_AHEAD */
    size_t n_running, n_failed, first_failed;
    uint64_t n_generated;
    int64_t start_us, drawn_us;
} batch;

/* ---- reading ---- */

/* The next line that is not blank; false at the end. */
static bool next_line(lines *l, sl_bytes *out)
{
    while (l->at < l->input->n_bytes) {
        const char *bytes = l->input->bytes + l->at, *end = memchr(bytes, '\n', l->input->n_bytes - l->at);
        size_t n = end != NULL ? (size_t)(end - bytes) : l->input->n_bytes - l->at;
        l->at += n + 1;
        l->n_read++;
        *out = (sl_bytes){bytes, n};
        if (strspn(bytes, " \t\r") < n)
            return true;
    }
    return false;
}

static sl_status make_prompt(const batch *b, const sl_request_line *r, bool raw, sl_tokens *out, sl_err *err)
{
    if (r->prompt.bytes == NULL)
        return sl_bundle_chat_tokens(b->bundle, r->messages.items, r->messages.n, out, err);
    if (raw)
        return sl_bundle_text_tokens(b->bundle, r->prompt.bytes, r->prompt.n_bytes, out, err);
    sl_message messages[2];
    size_t n = 0;
    if (b->options->system != NULL)
        messages[n++] = (sl_message){"system", {b->options->system, strlen(b->options->system)}};
    messages[n++] = (sl_message){"user", r->prompt};
    return sl_bundle_chat_tokens(b->bundle, messages, n, out, err);
}

/* Reads a line into *request and *prompt, which the caller frees whatever the status. */
static sl_status read_line(const batch *b, sl_bytes line, sl_request_line *request, sl_tokens *prompt, sl_err *err)
{
    const sl_generate_options *defaults = b->options->defaults;
    sl_request_line absent = {.sampling = defaults->sampling, .max_tokens = defaults->max_tokens};
    *prompt = (sl_tokens){0};
    SL_TRY(sl_request_line_read(line.bytes, line.n_bytes, &absent, request, err));
    return make_prompt(b, request, defaults->raw, prompt, err);
}

/* ---- how large an engine ---- */

/* Looks at the requests, of which nothing is kept, until the engine is to be as large as it may get. */
static sl_status measure(const batch *b, sl_engine_options *engine, sl_err *err)
{
    lines all = b->lines;
    size_t n_good = 0;
    uint32_t context = 2;
    sl_bytes line;
    while ((context < b->options->context || n_good < b->options->n_parallel) && next_line(&all, &line)) {
        sl_request_line request;
        sl_tokens prompt;
        sl_err ignored;
        if (read_line(b, line, &request, &prompt, &ignored) == SL_OK) {
            context = SL_MAX(context, (uint32_t)SL_MIN((uint64_t)prompt.n + request.max_tokens, b->options->context));
            n_good++;
        }
        sl_request_line_free(&request);
        sl_tokens_free(&prompt);
        if (sl_interrupts() > 0)
            SL_FAIL(err, SL_ERR_CANCELLED, "interrupted");
    }
    engine->context = context;
    engine->n_sequences = (uint32_t)SL_MAX(SL_MIN(n_good, b->options->n_parallel), 1);
    return SL_OK;
}

/* No larger than the requests need. */
static sl_status open_engine(batch *b, sl_err *err)
{
    const sl_answer_file_options *o = b->options;
    sl_engine_options engine = {.chunk = o->chunk, .keep = o->keep, .token_bytes = sl_bundle_token_bytes(b->bundle)};
    lines all = b->lines;
    for (sl_bytes line; next_line(&all, &line);)
        b->n_jobs++;
    if (b->n_jobs == 0)
        SL_FAIL(err, SL_ERR_FORMAT, "the input has no requests");
    SL_TRY(measure(b, &engine, err));
    return sl_bundle_open_engine(b->bundle, &engine, &b->engine, err);
}

/* ---- answering ---- */

static void begin_job(const batch *b, job *j, sl_bytes line)
{
    sl_request_line request;
    sl_tokens prompt;
    j->status = read_line(b, line, &request, &prompt, &j->err);
    j->id = json_incref((json_t *)(uintptr_t)request.id);
    j->n_prompt = prompt.n;
    j->options = (sl_generate_options){.sampling = request.sampling,
                                       .max_tokens = request.max_tokens,
                                       .stop = {request.stop, request.n_stop},
                                       .raw = b->options->defaults->raw && request.prompt.bytes != NULL};
    if (j->status == SL_OK)
        j->status =
            sl_generation_begin(b->bundle, b->engine, &prompt, &j->options, &j->answer, &j->generation, &j->err);
    j->running = j->status == SL_OK;
    j->done = !j->running;
    sl_request_line_free(&request);
    sl_tokens_free(&prompt);
}

static sl_status begin_jobs(batch *b, sl_err *err)
{
    sl_bytes line;
    while (b->n_running < b->options->n_parallel && b->n_begun - b->n_printed < MAX_AHEAD &&
           next_line(&b->lines, &line)) {
        job *j = calloc(1, sizeof(*j));
        if (j == NULL)
            SL_FAIL(err, SL_ERR_NOMEM, "out of memory for a request");
        b->window[b->n_begun++ % MAX_AHEAD] = j;
        j->line = b->lines.n_read;
        begin_job(b, j, line);
        b->n_running += j->running;
    }
    return SL_OK;
}

/* What the engine is done with. */
static void end_job(batch *b, job *j)
{
    j->status = sl_generation_finish(&j->generation);
    b->n_generated += j->answer.n_generated;
    free(j->answer.sampled); /* the text is all that is printed of it */
    j->answer.sampled = NULL;
    j->running = false;
    j->done = true;
    b->n_running--;
}

static void end_jobs(batch *b)
{
    for (size_t i = b->n_printed; i < b->n_begun; i++) {
        job *j = b->window[i % MAX_AHEAD];
        if (j->running && j->generation.ended)
            end_job(b, j);
        else if (j->running && j->generation.status != SL_OK) /* its text could not be kept */
            sl_engine_cancel(b->engine, j->generation.id);
    }
}

/* ---- printing ---- */

static json_t *job_to_json(const job *j)
{
    json_t *id = j->id != NULL ? json_incref(j->id) : json_null();
    if (j->status != SL_OK)
        return json_pack("{s:o, s:I, s:{s:s, s:o}}", "id", id, "line", (json_int_t)j->line, "error", "type",
                         sl_status_name(j->status), "message", sl_json_text(j->err.message, strlen(j->err.message)));
    const sl_answer *a = &j->answer;
    return json_pack("{s:o, s:I, s:o, s:I, s:I, s:s}", "id", id, "line", (json_int_t)j->line, "text",
                     sl_json_text(a->n_bytes > 0 ? a->text : "", a->n_bytes), "prompt_tokens", (json_int_t)j->n_prompt,
                     "completion_tokens", (json_int_t)a->n_generated, "finish_reason", sl_finish_name(a->finish));
}

static void free_job(job *j)
{
    json_decref(j->id);
    sl_answer_free(&j->answer);
    free(j);
}

static sl_status print_jobs(batch *b, sl_err *err)
{
    while (b->n_printed < b->n_begun && b->window[b->n_printed % MAX_AHEAD]->done) {
        job *j = b->window[b->n_printed % MAX_AHEAD];
        if (j->status == SL_OK && j->answer.finish == SL_FINISH_CANCELLED)
            return SL_OK; /* Ctrl-C: what comes behind is not complete either, or not in order */
        if (j->status != SL_OK && b->n_failed++ == 0)
            b->first_failed = j->line;
        sl_status status = sl_out_json(job_to_json(j), err);
        free_job(j);
        b->n_printed++;
        SL_TRY(status);
    }
    sl_out_flush();
    return SL_OK;
}

static void show_progress(batch *b)
{
    int64_t now_us = sl_clock_us();
    if (!sl_is_terminal(STDERR_FILENO) || now_us - b->drawn_us < REDRAW_US)
        return;
    b->drawn_us = now_us;
    fprintf(stderr, "\r\033[K%zu of %zu requests, %.1f generated tokens/s", b->n_printed, b->n_jobs,
            (double)b->n_generated * 1e6 / (double)SL_MAX(now_us - b->start_us, 1));
}

static void hide_progress(const batch *b)
{
    if (b->drawn_us > 0)
        fputs("\r\033[K", stderr);
}

static sl_status answer_jobs(batch *b, sl_err *err)
{
    bool busy = true;
    b->start_us = sl_clock_us();
    while (b->n_printed < b->n_jobs) {
        SL_TRY(begin_jobs(b, err));
        if (sl_interrupts() > 0 || sl_out_failed())
            SL_FAIL(err, SL_ERR_CANCELLED, "interrupted");
        SL_TRY(sl_engine_step(b->engine, sl_clock_us(), &busy, err));
        end_jobs(b);
        SL_TRY(print_jobs(b, err));
        show_progress(b);
    }
    return SL_OK;
}

/* Ends what is still running; the engine's events point to it. */
static void stop_jobs(batch *b)
{
    sl_err ignored;
    bool busy = true;
    for (size_t i = b->n_printed; i < b->n_begun; i++)
        if (b->window[i % MAX_AHEAD]->running)
            sl_engine_cancel(b->engine, b->window[i % MAX_AHEAD]->generation.id);
    while (b->n_running > 0 && busy && sl_engine_step(b->engine, sl_clock_us(), &busy, &ignored) == SL_OK)
        end_jobs(b);
    sl_bundle_close_engine(b->bundle, b->engine);
    for (size_t i = b->n_printed; i < b->n_begun; i++) {
        job *j = b->window[i % MAX_AHEAD];
        if (j->running) /* the engine could not go on */
            end_job(b, j);
        free_job(j);
    }
}

sl_status sl_answer_file(const sl_bundle *bundle, const sl_input *input, const sl_answer_file_options *options,
                         sl_err *err)
{
    batch *b = calloc(1, sizeof(*b));
    if (b == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    b->bundle = bundle;
    b->options = options;
    b->lines.input = input;
    sl_status status = open_engine(b, err);
    if (status == SL_OK)
        status = answer_jobs(b, err);
    hide_progress(b);
    if (status == SL_OK && b->n_failed > 0)
        status = sl_err_set(err, SL_ERR_FORMAT, "%zu of %zu requests failed, the first in line %zu", b->n_failed,
                            b->n_jobs, b->first_failed);
    stop_jobs(b);
    free(b);
    return status;
}
