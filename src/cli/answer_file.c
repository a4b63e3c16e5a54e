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
    MAX_LINES = 1 << 20,
    MAX_AHEAD = 1 << 14, /* answers that wait for one before them to be printed */
    REDRAW_US = 200000
};

/* One line. It is read when the file is; what it holds is freed when its answer is printed. */
typedef struct job {
    size_t line; /* from 1 */
    sl_request_line request;
    sl_tokens prompt;
    sl_generate_options options;
    sl_generation generation;
    sl_answer answer;
    sl_status status;
    sl_err err;
    bool running, done;
} job;

typedef struct batch {
    const sl_bundle *bundle;
    const sl_answer_file_options *options;
    sl_engine *engine;
    job *jobs;
    size_t n_jobs, capacity;
    size_t n_begun, n_printed; /* the jobs before these; a job begins and is printed in order */
    size_t n_running, n_failed, first_failed;
    uint64_t n_generated;
    int64_t start_us, drawn_us;
} batch;

/* ---- reading ---- */

static sl_status make_prompt(const batch *b, job *j)
{
    const sl_request_line *r = &j->request;
    if (r->prompt.bytes == NULL)
        return sl_bundle_chat_tokens(b->bundle, r->messages, r->n_messages, &j->prompt, &j->err);
    if (j->options.raw)
        return sl_bundle_text_tokens(b->bundle, r->prompt.bytes, r->prompt.n_bytes, &j->prompt, &j->err);
    sl_message messages[2];
    size_t n = 0;
    if (b->options->system != NULL)
        messages[n++] = (sl_message){"system", {b->options->system, strlen(b->options->system)}};
    messages[n++] = (sl_message){"user", r->prompt};
    return sl_bundle_chat_tokens(b->bundle, messages, n, &j->prompt, &j->err);
}

static void read_job(const batch *b, job *j, const char *bytes, size_t n_bytes)
{
    const sl_generate_options *defaults = b->options->defaults;
    sl_request_line absent = {.sampling = defaults->sampling, .max_tokens = defaults->max_tokens};
    j->status = sl_request_line_read(bytes, n_bytes, &absent, &j->request, &j->err);
    if (j->status != SL_OK)
        return;
    j->options = (sl_generate_options){.sampling = j->request.sampling,
                                       .max_tokens = j->request.max_tokens,
                                       .raw = defaults->raw && j->request.prompt.bytes != NULL};
    j->status = make_prompt(b, j);
}

static sl_status add_job(batch *b, job **out, sl_err *err)
{
    if (b->n_jobs == MAX_LINES)
        SL_FAIL(err, SL_ERR_LIMIT, "the input has more than %d requests", MAX_LINES);
    if (b->n_jobs == b->capacity) {
        size_t capacity = b->capacity ? 2 * b->capacity : 64;
        job *grown = realloc(b->jobs, capacity * sizeof(*grown));
        if (grown == NULL)
            SL_FAIL(err, SL_ERR_NOMEM, "out of memory for %zu requests", capacity);
        b->jobs = grown;
        b->capacity = capacity;
    }
    *out = &b->jobs[b->n_jobs++];
    **out = (job){0};
    return SL_OK;
}

static sl_status read_jobs(batch *b, const sl_input *input, sl_err *err)
{
    size_t line = 0;
    for (size_t at = 0; at < input->n_bytes;) {
        const char *bytes = input->bytes + at, *end = memchr(bytes, '\n', input->n_bytes - at);
        size_t n = end != NULL ? (size_t)(end - bytes) : input->n_bytes - at;
        line++;
        at += n + 1;
        if (strspn(bytes, " \t\r") >= n)
            continue;
        job *j = NULL;
        SL_TRY(add_job(b, &j, err));
        j->line = line;
        read_job(b, j, bytes, n);
        if (sl_interrupts() > 0)
            SL_FAIL(err, SL_ERR_CANCELLED, "interrupted");
    }
    if (b->n_jobs == 0)
        SL_FAIL(err, SL_ERR_FORMAT, "the input has no requests");
    return SL_OK;
}

/* ---- answering ---- */

/* No larger than the requests need. */
static sl_status open_engine(batch *b, sl_err *err)
{
    const sl_answer_file_options *o = b->options;
    sl_engine_options options = {.chunk = o->chunk, .context = 2, .token_bytes = sl_bundle_token_bytes(b->bundle)};
    size_t n_good = 0;
    for (size_t i = 0; i < b->n_jobs; i++) {
        const job *j = &b->jobs[i];
        uint64_t n = (uint64_t)j->prompt.n + j->options.max_tokens;
        n_good += j->status == SL_OK;
        if (j->status == SL_OK)
            options.context = SL_MAX(options.context, (uint32_t)SL_MIN(n, o->context));
    }
    options.n_sequences = (uint32_t)SL_MAX(SL_MIN(n_good, o->n_parallel), 1);
    return sl_bundle_open_engine(b->bundle, &options, &b->engine, err);
}

static void begin_jobs(batch *b)
{
    for (; b->n_begun < b->n_jobs && b->n_running < b->options->n_parallel && b->n_begun - b->n_printed < MAX_AHEAD;
         b->n_begun++) {
        job *j = &b->jobs[b->n_begun];
        j->options.stop = (sl_bytes_list){j->request.stop, j->request.n_stop};
        if (j->status == SL_OK)
            j->status =
                sl_generation_begin(b->bundle, b->engine, &j->prompt, &j->options, &j->answer, &j->generation, &j->err);
        j->running = j->status == SL_OK;
        j->done = !j->running;
        b->n_running += j->running;
    }
}

static void end_jobs(batch *b)
{
    for (size_t i = b->n_printed; i < b->n_begun; i++) {
        job *j = &b->jobs[i];
        if (!j->running || (!j->generation.ended && j->generation.status == SL_OK))
            continue;
        if (!j->generation.ended) { /* its text could not be kept */
            sl_engine_cancel(b->engine, j->generation.id);
            continue;
        }
        j->status = sl_generation_finish(&j->generation);
        b->n_generated += j->answer.n_generated;
        j->running = false;
        j->done = true;
        b->n_running--;
    }
}

/* ---- printing ---- */

static json_t *job_to_json(const job *j)
{
    json_t *id = j->request.id != NULL ? json_deep_copy(j->request.id) : json_null();
    if (j->status != SL_OK)
        return json_pack("{s:o, s:I, s:{s:s, s:o}}", "id", id, "line", (json_int_t)j->line, "error", "type",
                         sl_status_name(j->status), "message", sl_json_text(j->err.message, strlen(j->err.message)));
    const sl_answer *a = &j->answer;
    return json_pack("{s:o, s:I, s:o, s:I, s:I, s:s}", "id", id, "line", (json_int_t)j->line, "text",
                     sl_json_text(a->n_bytes > 0 ? a->text : "", a->n_bytes), "prompt_tokens", (json_int_t)j->prompt.n,
                     "completion_tokens", (json_int_t)a->n_generated, "finish_reason", sl_finish_name(a->finish));
}

static void free_job(job *j)
{
    sl_request_line_free(&j->request);
    sl_tokens_free(&j->prompt);
    sl_answer_free(&j->answer);
}

static sl_status print_jobs(batch *b, sl_err *err)
{
    for (; b->n_printed < b->n_begun && b->jobs[b->n_printed].done; b->n_printed++) {
        job *j = &b->jobs[b->n_printed];
        if (j->status == SL_OK && j->answer.finish == SL_FINISH_CANCELLED)
            return SL_OK; /* Ctrl-C: what comes behind is not complete either, or not in order */
        if (j->status != SL_OK && b->n_failed++ == 0)
            b->first_failed = j->line;
        sl_status status = sl_out_json(job_to_json(j), err);
        free_job(j);
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
        begin_jobs(b);
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
    for (size_t i = 0; i < b->n_begun; i++)
        if (b->jobs[i].running)
            sl_engine_cancel(b->engine, b->jobs[i].generation.id);
    while (b->n_running > 0 && busy && sl_engine_step(b->engine, sl_clock_us(), &busy, &ignored) == SL_OK)
        end_jobs(b);
    sl_bundle_close_engine(b->bundle, b->engine);
    for (size_t i = 0; i < b->n_jobs; i++) {
        if (b->jobs[i].running) /* the engine could not go on */
            b->jobs[i].status = sl_generation_finish(&b->jobs[i].generation);
        free_job(&b->jobs[i]);
    }
    free(b->jobs);
}

sl_status sl_answer_file(const sl_bundle *bundle, const sl_input *input, const sl_answer_file_options *options,
                         sl_err *err)
{
    batch b = {.bundle = bundle, .options = options};
    sl_status status = read_jobs(&b, input, err);
    if (status == SL_OK)
        status = open_engine(&b, err);
    if (status == SL_OK)
        status = answer_jobs(&b, err);
    hide_progress(&b);
    if (status == SL_OK && b.n_failed > 0)
        status = sl_err_set(err, SL_ERR_FORMAT, "%zu of %zu requests failed, the first in line %zu", b.n_failed,
                            b.n_jobs, b.first_failed);
    stop_jobs(&b);
    return status;
}
