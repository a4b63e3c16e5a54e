/* A request to generate or embed: body -> text job -> tickets -> events -> answer. */
#include "base/clock.h"
#include "serve/server_impl.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

enum {
    RETRY_S = 1,          /* where nobody knows */
    RETRY_DRAINING_S = 5, /* somebody else serves by then, or nobody */
    MAX_RETRY_S = 24 * 3600,
    DEFAULT_ANSWERS = 256 << 20,
};

/* ---- beginning and end ---- */

static void free_choice(sl_choice *choice)
{
    sl_detok_free(&choice->detok);
    sl_textbuf *texts[] = {&choice->text, &choice->logprobs, &choice->token_logprobs, &choice->top_logprobs,
                           &choice->offsets};
    for (size_t i = 0; i < SL_COUNTOF(texts); i++)
        sl_textbuf_free(texts[i]);
}

/* Bytes that a part of an answer which is not streamed has collected. */
static size_t collected(const sl_part *part)
{
    size_t n = 0;
    for (uint32_t i = 0; i < part->n; i++) {
        const sl_choice *c = &part->call->choices[part->first + i];
        n += c->text.capacity + c->logprobs.capacity + c->token_logprobs.capacity + c->top_logprobs.capacity +
             c->offsets.capacity;
    }
    return n;
}

/* Notes what a part has collected by now; false when that is too much, together with all others. */
static bool note_collected(sl_part *part)
{
    sl_server *server = part->call->server;
    size_t n = collected(part), most = server->options.max_answers ? server->options.max_answers : DEFAULT_ANSWERS;
    server->n_collected += n - part->n_collected;
    part->n_collected = n;
    return server->n_collected <= most;
}

/* Frees a call that is answered or whose client has gone; what it has with the engine ends. */
static void end_call(sl_call *call)
{
    sl_server *server = call->server;
    for (uint32_t i = 0; i < call->n_submitted; i++)
        sl_ticket_release(call->parts[i].ticket);
    for (uint32_t i = 0; i < call->n_parts; i++)
        server->n_collected -= call->parts[i].n_collected;
    for (uint32_t i = 0; i < call->n_choices; i++)
        free_choice(&call->choices[i]);
    free(call->parts);
    free(call->choices);
    if (call->body)
        sl_http_body_freed(server->http, call->n_body);
    free(call->body);
    if (call->timer)
        event_free(call->timer);
    sl_api_request_free(&call->request);
    sl_textbuf_free(&call->head);
    sl_textbuf_free(&call->chunk);
    free(call);
    server->n_calls--;
}

/* Answers with an error, before or in a stream, and ends the call. retry_s > 0: Retry-After. */
static void fail_call(sl_call *call, int status, const char *code, const char *param, int retry_s, const char *message)
{
    if (call->begun)
        sl_reply_stream_error(call, message);
    else
        sl_server_refuse(call->server, call->conn, status, code, param, retry_s, message);
    end_call(call);
}

static void out_of_memory(sl_call *call)
{
    fail_call(call, 503, NULL, NULL, RETRY_S, "out of memory");
}

static sl_status read_request(sl_call *call)
{
    sl_server *server = call->server;
    sl_api_request *request = &call->request;
    SL_TRY(sl_api_parse(call->kind, call->body, call->n_body, request, &call->error));
    if (request->model[0] && !sl_server_has_model(server, request->model)) {
        sl_status status =
            sl_api_fail(&call->error, SL_ERR_NOT_FOUND, 404, "model", "there is no model '%.100s' here, only '%.100s'",
                        request->model, server->options.model);
        call->error.code = "model_not_found";
        return status;
    }
    return sl_api_tokenize(server->bundle, sl_service_context(server->service), request, &call->error);
}

/* The text job: everything that may take long with a hostile or just large body, freeing what it was parsed into too. */
static void prepare(void *user)
{
    sl_call *call = user;
    if (!atomic_load(&call->abandoned)) /* else nobody waits for it any more */
        call->status = read_request(call);
    sl_api_request_drop_body(&call->request);
    sl_server_call_done(call->server, call);
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
    static const char *const ids[] = {
        [SL_API_CHAT] = "chatcmpl", [SL_API_COMPLETION] = "cmpl", [SL_API_EMBEDDING] = "embd"};
    snprintf(call->id, sizeof call->id, "%s-%016llx%08llx", ids[kind], (unsigned long long)server->nonce,
             (unsigned long long)++server->last_call);
    call->body = sl_conn_take_body(conn);
    server->n_calls++;
    if (sl_jobs_submit(server->jobs, prepare, call, &err) != SL_OK) {
        fail_call(call, 429, NULL, NULL, RETRY_S, err.message);
        return;
    }
    sl_conn_set_call(conn, call);
}

void sl_call_abandon(sl_call *call)
{
    call->conn = NULL;
    atomic_store(&call->abandoned, true);
    if (call->in_job)
        return; /* it is freed when the job has ended */
    call->server->metrics.endings[SL_ENDED_ABORT] += call->n_choices - call->n_finished;
    end_call(call);
}

/* ---- to the engine ---- */

/* Slots of the engine. */
static uint32_t n_slots(const sl_call *call)
{
    return SL_MAX(call->server->options.service.engine.n_sequences, 1);
}

/* The engine's request for a part. */
static sl_request make_request(const sl_call *call, const sl_part *part)
{
    const sl_api_request *r = &call->request;
    const sl_tokens *prompt = &r->prompts[part->first / r->n];
    sl_request request = {.prompt = prompt->ids,
                          .n_prompt = prompt->n,
                          .tenant = call->tenant,
                          .priority = r->priority,
                          .ttft_target_us = r->ttft_target_us,
                          .itl_target_us = r->itl_target_us,
                          .sampling = r->sampling};
    if (call->kind == SL_API_EMBEDDING) {
        request.pooling = call->server->options.pooling;
        request.normalise = true;
        return request;
    }
    request.max_tokens = r->max_tokens;
    request.n_choices = part->n;
    request.first_choice = part->first % r->n;
    request.stop_tokens = r->stop_tokens.ids;
    request.n_stop_tokens = r->stop_tokens.n;
    request.stop_strings = (sl_bytes_list){r->stop_strings, r->n_stop_strings};
    request.prompt_logprobs = r->echo && r->logprobs;
    request.n_prompt_logprobs = request.prompt_logprobs ? r->sampling.n_logprobs : 0;
    request.warm = r->max_tokens == 0 && !request.prompt_logprobs; /* the text alone comes back */
    if (!r->seeded && getrandom(&request.sampling.seed, sizeof request.sampling.seed, 0) < 0)
        request.sampling.seed = (uint64_t)sl_clock_ns();
    return request;
}

static sl_status submit_part(sl_call *call, sl_part *part, bool predict, sl_err *err)
{
    sl_server *server = call->server;
    sl_request request = make_request(call, part);
    return (predict ? sl_service_predict : sl_service_submit)(server->service, server->inbox, &request, part,
                                                              &part->ticket, err);
}

/* Submits what is not with the engine yet. Of the inputs of an embedding only a few are there at a time, so that many of
 * them keep nobody else out. */
static sl_status submit_parts(sl_call *call, sl_err *err)
{
    bool embedding = call->kind == SL_API_EMBEDDING;
    uint32_t most = embedding ? call->n_finished + 2 * n_slots(call) : call->n_parts;
    while (call->n_submitted < SL_MIN(call->n_parts, most)) {
        sl_status status = submit_part(call, &call->parts[call->n_submitted], false, err);
        if (status == SL_ERR_LIMIT && embedding && call->n_submitted > call->n_finished)
            return SL_OK; /* the end of one that is there makes room */
        SL_TRY(status);
        call->n_submitted++;
    }
    if (call->n_submitted == call->n_parts)
        sl_api_request_drop_input(&call->request);
    return SL_OK;
}

/* Too many requests are there: when the client should come back is the engine's to say. */
static void refuse_for_now(sl_call *call, const char *message, int64_t wait_us)
{
    int64_t wait_s = (SL_MAX(wait_us, 0) + 999999) / 1000000;
    call->server->retry_s = (int)SL_MIN(SL_MAX(wait_s, RETRY_S), MAX_RETRY_S);
    fail_call(call, 429, NULL, NULL, call->server->retry_s, message);
}

/* Submit has failed. Where it was for want of room, the engine is asked how long that will be; while it is busy with too
 * many such questions, what it has said last must do. */
static void refuse(sl_call *call, const sl_err *err)
{
    sl_err ignored;
    if (err->code != SL_ERR_LIMIT) {
        fail_call(call, 503, NULL, NULL, RETRY_DRAINING_S, err->message);
        return;
    }
    for (uint32_t i = 0; i < call->n_submitted; i++) {
        sl_ticket_release(call->parts[i].ticket);
        call->parts[i].ticket = NULL;
    }
    call->n_submitted = 0;
    snprintf(call->error.message, sizeof call->error.message, "%s", err->message);
    if (submit_part(call, &call->parts[0], true, &ignored) == SL_OK)
        call->n_submitted = 1;
    else
        refuse_for_now(call, call->error.message, (int64_t)call->server->retry_s * 1000000);
}

static void init_choice(sl_call *call, uint32_t index)
{
    sl_choice *choice = &call->choices[index];
    const sl_api_request *r = &call->request;
    *choice = (sl_choice){.call = call, .index = index};
    sl_detok_init(&choice->detok, sl_bundle_vocab(call->server->bundle), 0);
    choice->at_start = r->echo && choice->detok.at_start;
    if (call->kind == SL_API_COMPLETION)
        choice->detok.at_start = false; /* it goes on with a text */
    if (r->echo)
        sl_reply_echo(choice, &r->prompts[index / r->n], r->echoes[index / r->n]);
}

/* A prompt's choices go to the engine together, as it computes the prompt once for them, but take half of its slots at
 * most: a request that needs all of them would make all others wait until they are free at once. */
static bool make_parts(sl_call *call)
{
    uint32_t n = call->request.n, n_prompts = (uint32_t)call->request.n_prompts, most = SL_MAX(n_slots(call) / 2, 1);
    call->choices = calloc((size_t)n_prompts * n, sizeof *call->choices);
    call->parts = calloc((size_t)n_prompts * n, sizeof *call->parts);
    if (!call->choices || !call->parts)
        return false;
    call->n_choices = n_prompts * n;
    for (uint32_t i = 0; i < call->n_choices; i++)
        init_choice(call, i);
    for (uint32_t i = 0; i < call->n_choices; i += call->parts[call->n_parts++].n)
        call->parts[call->n_parts] = (sl_part){.call = call, .first = i, .n = SL_MIN(most, n - i % n)};
    return true;
}

/* The answer begins when the engine has accepted all parts. */
static void submit(sl_call *call)
{
    sl_err err = {0};
    const sl_api_request *r = &call->request;
    uint32_t most = call->server->options.service.max_tickets;
    if (call->kind != SL_API_EMBEDDING && most > 0 && r->n_prompts * r->n > most) {
        char message[128];
        snprintf(message, sizeof message, "%zu answers at once: this server takes %u requests at a time",
                 r->n_prompts * r->n, most);
        fail_call(call, 400, NULL, r->n > 1 ? "n" : "prompt", 0, message);
        return;
    }
    if (!make_parts(call)) {
        out_of_memory(call);
        return;
    }
    sl_reply_head(call);
    if (submit_parts(call, &err) != SL_OK)
        refuse(call, &err);
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
        fail_call(call, call->error.status, call->error.code, call->error.param,
                  call->error.status == 503 ? RETRY_S : 0, call->error.message);
    else
        submit(call);
}

/* ---- from the engine ---- */

/* A stream without a word for long gets a comment, so that neither client nor proxy takes it for dead. */
static void on_timer(evutil_socket_t fd, short what, void *user)
{
    static const char comment[] = ": still working\n\n";
    sl_call *call = user;
    if (call->quiet && !sl_conn_is_full(call->conn))
        sl_conn_stream(call->conn, comment, sizeof comment - 1);
    call->quiet = true;
}

static void start_timer(sl_call *call)
{
    struct timeval interval = {.tv_sec = call->server->options.keep_alive_s};
    call->timer = event_new(call->server->base, -1, EV_PERSIST, on_timer, call);
    if (call->timer)
        event_add(call->timer, &interval);
}

/* The engine has accepted all parts: status and headers go out. */
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
    start_timer(call);
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
    sl_reply_token(choice, &e->event.sampled, false);
    add_text(choice, (sl_bytes){e->event.bytes, e->event.n_bytes});
}

static void note_finish(const sl_choice *choice, const sl_ticket_event *e)
{
    const sl_call *call = choice->call;
    sl_metrics *metrics = &call->server->metrics;
    bool stopped = e->event.finish == SL_FINISH_STOP || call->kind == SL_API_EMBEDDING;
    sl_metrics_observe(metrics, SL_METRIC_E2E, e->time_us - call->arrived_us);
    sl_metrics_observe(metrics, SL_METRIC_QUEUE, e->event.queue_us);
    sl_metrics_observe(metrics, SL_METRIC_PREFILL, e->event.prefill_us - e->event.queue_us);
    if (e->event.n_generated > 0)
        sl_metrics_observe(metrics, SL_METRIC_DECODE, e->event.decode_us);
    metrics->endings[stopped ? SL_ENDED_STOP : SL_ENDED_LENGTH]++;
    if (choice->index % call->request.n == 0) /* the choices of a prompt share it */
        metrics->prompt_tokens += e->event.n_prompt;
}

/* The engine could not go on with a part, or has refused it. */
static void fail_part(const sl_part *part, const sl_event *end)
{
    sl_call *call = part->call;
    bool refused = !part->accepted && (end->error.code == SL_ERR_ARGUMENT || end->error.code == SL_ERR_LIMIT ||
                                       end->error.code == SL_ERR_UNSUPPORTED);
    bool closing = end->finish == SL_FINISH_CANCELLED;
    call->server->metrics.endings[SL_ENDED_ERROR] += refused ? 0 : call->n_choices - call->n_finished;
    fail_call(call,
              refused   ? 400
              : closing ? 503
                        : 500,
              NULL, NULL, closing ? RETRY_DRAINING_S : 0,
              closing ? "the server has ended the request" : end->error.message);
}

static void end_answer(sl_call *call)
{
    if (call->kind == SL_API_EMBEDDING)
        sl_reply_embeddings(call);
    else
        sl_reply_end(call);
    end_call(call);
}

/* The engine's end of a choice. False when that ended the call. */
static bool read_finish(sl_part *part, const sl_ticket_event *e)
{
    sl_call *call = part->call;
    const sl_event *end = &e->event;
    sl_choice *choice = &call->choices[part->first + end->choice];
    sl_err err = {0};
    if (end->finish == SL_FINISH_ERROR || end->finish == SL_FINISH_CANCELLED) {
        fail_part(part, end);
        return false;
    }
    add_text(choice, (sl_bytes){end->bytes, end->n_bytes});
    sl_bytes rest;
    if (sl_detok_finish(&choice->detok, &rest, NULL) == SL_OK)
        sl_textbuf_json_part(&choice->text, rest.bytes, rest.n_bytes);
    choice->end = *end;
    choice->finished = true;
    note_finish(choice, e);
    if (call->kind != SL_API_EMBEDDING)
        sl_reply_finish(choice);
    if (++part->n_finished == part->n) {
        sl_ticket_release(part->ticket);
        part->ticket = NULL;
    }
    if (++call->n_finished == call->n_choices) {
        end_answer(call);
        return false;
    }
    if (submit_parts(call, &err) == SL_OK)
        return true;
    refuse(call, &err);
    return false;
}

/* Reads all parts after the last one was accepted, or when a slow client has caught up. */
static bool read_all(sl_call *call)
{
    for (uint32_t i = 0, n = call->n_submitted; i < n; i++)
        if (call->parts[i].ticket && !sl_call_read(&call->parts[i]))
            return false;
    return true;
}

/* Log-probabilities of a prompt come once and are those of all its choices. */
static void read_prompt_token(sl_part *part, const sl_sampled *sampled)
{
    for (uint32_t i = 0; i < part->n; i++)
        sl_reply_token(&part->call->choices[part->first + i], sampled, true);
}

/* An event of a part. False when it ended the call. */
static bool read_event(sl_part *part, const sl_ticket_event *e)
{
    sl_call *call = part->call;
    sl_choice *choice = &call->choices[part->first + e->event.choice];
    switch (e->kind) {
    case SL_TICKET_ACCEPTED:
        part->accepted = true;
        break;
    case SL_TICKET_PREDICTED:
        refuse_for_now(call, call->error.message, e->wait_us);
        return false;
    case SL_TICKET_PROMPT:
        read_prompt_token(part, &e->event.sampled);
        break;
    case SL_TICKET_TOKEN:
        read_token(choice, e);
        break;
    case SL_TICKET_EMBEDDING:
        sl_reply_embedding(choice, e->event.embedding, e->event.n_embedding);
        break;
    case SL_TICKET_FINISHED:
        return read_finish(part, e);
    }
    return true;
}

bool sl_call_read(sl_part *part)
{
    sl_call *call = part->call;
    sl_ticket_event event = {0};
    if (call->paused || (call->request.stream && part->accepted && call->n_accepted < call->n_parts))
        return true; /* read_all comes back */
    while (part->ticket) {
        call->paused = call->begun && sl_conn_is_full(call->conn);
        if (call->paused || !sl_ticket_next(part->ticket, &event))
            break;
        if (!read_event(part, &event))
            return false;
        if (event.kind != SL_TICKET_ACCEPTED || !call->request.stream)
            continue;
        if (++call->n_accepted < call->n_parts)
            return true;
        begin_answer(call);
        return read_all(call);
    }
    if (call->begun) { /* tokens that came together go out in one chunk */
        for (uint32_t i = 0; i < part->n; i++)
            sl_reply_chunk(&call->choices[part->first + i]);
        sl_reply_send(call);
    } else if (!call->request.stream && !note_collected(part)) {
        call->server->metrics.endings[SL_ENDED_ERROR] += call->n_choices - call->n_finished;
        fail_call(call, 503, NULL, NULL, RETRY_S,
                  "the answers that are being made take too much memory: ask for less at a time, or set "
                  "'stream': true");
        return false;
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
