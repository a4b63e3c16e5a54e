/* A request to generate: body -> text job -> tickets -> events -> answer. */
#include "base/clock.h"
#include "serve/server_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum { RETRY_S = 1, RETRY_DRAINING_S = 5 };

/* ---- beginning and end ---- */

static void free_choice(sl_choice *choice)
{
    sl_ticket_release(choice->ticket);
    sl_detok_free(&choice->detok);
    sl_textbuf *texts[] = {&choice->text, &choice->logprobs, &choice->token_logprobs, &choice->top_logprobs,
                           &choice->offsets};
    for (size_t i = 0; i < SL_COUNTOF(texts); i++)
        sl_textbuf_free(texts[i]);
}

/* Frees a call that is answered or whose client has gone; what it has with the engine ends. */
static void end_call(sl_call *call)
{
    sl_server *server = call->server;
    for (uint32_t i = 0; i < call->n_choices; i++)
        free_choice(&call->choices[i]);
    free(call->choices);
    if (call->body)
        sl_http_body_freed(server->http, call->n_body);
    free(call->body);
    sl_api_request_free(&call->request);
    sl_textbuf_free(&call->head);
    sl_textbuf_free(&call->chunk);
    free(call);
    server->n_calls--;
}

/* Answers with an error, before or in a stream, and ends the call. */
static void fail_call(sl_call *call, int status, const char *code, const char *param, const char *message)
{
    sl_server *server = call->server;
    sl_conn *conn = call->conn;
    int retry_s = status == 429 ? RETRY_S : status == 503 ? RETRY_DRAINING_S : 0;
    if (call->begun)
        sl_reply_stream_error(call, message);
    else
        sl_server_refuse(server, conn, status, code, param, retry_s, message);
    end_call(call);
}

/* The text job: everything that may take long with a hostile or just large body. */
static void prepare(void *user)
{
    sl_call *call = user;
    sl_server *server = call->server;
    call->status = sl_api_parse(call->kind, call->body, call->n_body, &call->request, &call->error);
    if (call->status == SL_OK && call->request.model[0] && !sl_server_has_model(server, call->request.model)) {
        call->status =
            sl_api_fail(&call->error, SL_ERR_NOT_FOUND, 404, "model", "there is no model '%.100s' here, only '%.100s'",
                        call->request.model, server->options.model);
        call->error.code = "model_not_found";
    }
    if (call->status == SL_OK)
        call->status =
            sl_api_tokenize(server->bundle, sl_service_context(server->service), &call->request, &call->error);
    sl_server_call_done(server, call);
}

void sl_call_begin(sl_server *server, sl_conn *conn, sl_api_kind kind, uint64_t tenant, size_t n_body)
{
    sl_call *call = calloc(1, sizeof *call);
    sl_err err = {0};
    if (!call) {
        sl_server_refuse(server, conn, 503, NULL, NULL, RETRY_S, "out of memory");
        return;
    }
    *call = (sl_call){.server = server, .conn = conn, .kind = kind, .tenant = tenant, .n_body = n_body, .in_job = true};
    call->arrived_us = sl_clock_us();
    call->created = (int64_t)time(NULL);
    snprintf(call->id, sizeof call->id, "%s-%016llx%08llx", kind == SL_API_CHAT ? "chatcmpl" : "cmpl",
             (unsigned long long)server->nonce, (unsigned long long)++server->last_call);
    call->body = sl_conn_take_body(conn);
    server->n_calls++;
    if (sl_jobs_submit(server->jobs, prepare, call, &err) != SL_OK) {
        fail_call(call, 429, NULL, NULL, err.message);
        return;
    }
    sl_conn_set_call(conn, call);
}

void sl_call_abandon(sl_call *call)
{
    call->conn = NULL;
    if (call->in_job)
        return; /* it is freed when the job has ended */
    call->server->metrics.endings[SL_ENDED_ABORT] += call->n_choices - call->n_finished;
    end_call(call);
}

/* ---- to the engine ---- */

static sl_status submit_choice(sl_call *call, uint32_t index, sl_err *err)
{
    sl_server *server = call->server;
    sl_api_request *r = &call->request;
    sl_choice *choice = &call->choices[index];
    const sl_tokens *prompt = &r->prompts[index / r->n];
    sl_tokens stops = {0};
    const uint32_t *ends;
    size_t n_ends = r->ignore_eos ? 0 : sl_bundle_stop_tokens(server->bundle, &ends);
    sl_status status = SL_OK;
    for (size_t i = 0; i < n_ends && status == SL_OK; i++)
        status = sl_tokens_push(&stops, ends[i], err);
    for (size_t i = 0; i < r->stop_tokens.n && status == SL_OK; i++)
        status = sl_tokens_push(&stops, r->stop_tokens.ids[i], err);
    sl_request request = {.prompt = prompt->ids,
                          .n_prompt = prompt->n,
                          .max_tokens = r->max_tokens,
                          .tenant = call->tenant,
                          .stop_tokens = stops.ids,
                          .n_stop_tokens = stops.n,
                          .stop_strings = {r->stop_strings, r->n_stop_strings},
                          .sampling = r->sampling};
    if (r->seeded)
        request.sampling.seed += index % r->n; /* each choice draws for itself */
    else if (getrandom(&request.sampling.seed, sizeof request.sampling.seed, 0) < 0)
        request.sampling.seed = (uint64_t)sl_clock_ns();
    *choice = (sl_choice){.call = call, .index = index};
    sl_detok_init(&choice->detok, sl_bundle_vocab(server->bundle), 0);
    if (call->kind == SL_API_COMPLETION)
        choice->detok.at_start = false; /* it goes on with a text */
    if (status == SL_OK)
        status = sl_service_submit(server->service, server->inbox, &request, choice, &choice->ticket, err);
    sl_tokens_free(&stops);
    return status;
}

/* Submits all choices; the engine checks each, and only when it has accepted all does the answer begin. */
static void submit(sl_call *call)
{
    sl_err err = {0};
    uint32_t n = (uint32_t)call->request.n_prompts * call->request.n;
    call->choices = calloc(n, sizeof *call->choices);
    if (!call->choices) {
        fail_call(call, 503, NULL, NULL, "out of memory");
        return;
    }
    for (uint32_t i = 0; i < n; i++) {
        call->n_choices = i + 1;
        sl_status status = submit_choice(call, i, &err);
        if (status != SL_OK) {
            fail_call(call, status == SL_ERR_LIMIT ? 429 : 503, NULL, NULL, err.message);
            return;
        }
    }
    sl_reply_head(call);
    sl_api_request_drop_input(&call->request);
}

void sl_call_prepared(sl_call *call)
{
    call->in_job = false;
    sl_http_body_freed(call->server->http, call->n_body);
    free(call->body);
    call->body = NULL;
    if (!call->conn)
        end_call(call);
    else if (call->status != SL_OK)
        fail_call(call, call->error.status, call->error.code, call->error.param, call->error.message);
    else
        submit(call);
}

/* ---- from the engine ---- */

/* The engine has accepted all choices: status and headers go out. */
static void begin_answer(sl_call *call)
{
    char headers[224] = "";
    if (!call->request.stream)
        return;
    if (call->request.ignored[0])
        snprintf(headers, sizeof headers, "X-Sluice-Ignored-Fields: %s\r\n", call->request.ignored);
    sl_server_count(call->server, 200);
    sl_conn_stream_begin(call->conn, headers);
    call->begun = true;
    for (uint32_t i = 0; i < call->n_choices; i++)
        sl_reply_role(&call->choices[i]);
    sl_reply_send(call);
}

static void add_text(sl_choice *choice, sl_bytes bytes)
{
    sl_bytes text;
    if (bytes.n_bytes == 0)
        return;
    if (sl_detok_push_bytes(&choice->detok, bytes, &text, NULL) != SL_OK)
        choice->text.failed = true;
    else
        sl_textbuf_json_part(&choice->text, text.bytes, text.n_bytes);
}

static void read_token(sl_choice *choice, const sl_ticket_event *e)
{
    sl_metrics *metrics = &choice->call->server->metrics;
    if (choice->last_us == 0)
        sl_metrics_observe(metrics, SL_METRIC_TTFT, e->time_us - choice->call->arrived_us);
    else
        sl_metrics_observe(metrics, SL_METRIC_ITL, e->time_us - choice->last_us);
    choice->last_us = e->time_us;
    metrics->generation_tokens++;
    sl_reply_token(choice, &e->event.sampled);
    add_text(choice, (sl_bytes){e->event.bytes, e->event.n_bytes});
}

static void note_finish(sl_choice *choice, const sl_ticket_event *e)
{
    sl_call *call = choice->call;
    sl_metrics *metrics = &call->server->metrics;
    sl_metrics_observe(metrics, SL_METRIC_E2E, e->time_us - call->arrived_us);
    sl_metrics_observe(metrics, SL_METRIC_PREFILL, e->event.prefill_us);
    sl_metrics_observe(metrics, SL_METRIC_DECODE, e->event.decode_us);
    metrics->endings[e->event.finish == SL_FINISH_STOP ? SL_ENDED_STOP : SL_ENDED_LENGTH]++;
    metrics->prompt_tokens += e->event.n_prompt;
}

/* The engine's end of a choice. False when that ended the call. */
static bool read_finish(sl_choice *choice, const sl_ticket_event *e)
{
    sl_call *call = choice->call;
    const sl_event *end = &e->event;
    if (end->finish == SL_FINISH_ERROR || end->finish == SL_FINISH_CANCELLED) {
        bool refused = !choice->accepted && (end->error.code == SL_ERR_ARGUMENT || end->error.code == SL_ERR_LIMIT);
        bool closing = end->finish == SL_FINISH_CANCELLED;
        call->server->metrics.endings[SL_ENDED_ERROR] += !refused;
        fail_call(call,
                  refused   ? 400
                  : closing ? 503
                            : 500,
                  NULL, NULL, closing ? "the server has ended the request" : end->error.message);
        return false;
    }
    add_text(choice, (sl_bytes){end->bytes, end->n_bytes});
    sl_bytes rest;
    if (sl_detok_finish(&choice->detok, &rest, NULL) == SL_OK)
        sl_textbuf_json_part(&choice->text, rest.bytes, rest.n_bytes);
    choice->end = *end;
    choice->finished = true;
    note_finish(choice, e);
    sl_reply_finish(choice);
    if (++call->n_finished < call->n_choices)
        return true;
    sl_reply_end(call);
    end_call(call);
    return false;
}

/* Reads all choices after the last one was accepted, or when a slow client has caught up. */
static bool read_all(sl_call *call)
{
    uint32_t n = call->n_choices;
    for (uint32_t i = 0; i < n; i++)
        if (!call->choices[i].finished && !sl_call_read(&call->choices[i]))
            return false;
    return true;
}

bool sl_call_read(sl_choice *choice)
{
    sl_call *call = choice->call;
    sl_ticket_event event;
    if (call->paused || (choice->accepted && call->n_accepted < call->n_choices))
        return true; /* read_all comes back */
    for (;;) {
        call->paused = call->begun && sl_conn_is_full(call->conn);
        if (call->paused || !sl_ticket_next(choice->ticket, &event))
            break;
        if (event.kind == SL_TICKET_TOKEN) {
            read_token(choice, &event);
        } else if (event.kind == SL_TICKET_FINISHED) {
            if (!read_finish(choice, &event))
                return false;
        } else {
            choice->accepted = true;
            if (++call->n_accepted < call->n_choices)
                return true;
            begin_answer(call);
            return read_all(call);
        }
    }
    if (call->begun) { /* tokens that came together go out in one chunk */
        sl_reply_chunk(choice);
        sl_reply_send(call);
    }
    return true;
}

void sl_call_drained(sl_call *call)
{
    if (!call->paused)
        return;
    call->paused = false;
    read_all(call);
}
