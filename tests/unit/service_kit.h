/* What the tests of the service share: a tiny model, requests made from a number, answers read to their end, a service with an
 * inbox. */
#ifndef SL_TESTS_SERVICE_KIT_H
#define SL_TESTS_SERVICE_KIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "app/service.h"
#include "base/clock.h"

#include <stdatomic.h>
#include <string.h>
#include <time.h>

enum { N_REQUESTS = 12, N_TOKENS = 24, MAX_PROMPT = 40 };

static sl_bundle *bundle;

static inline void pause_ms(int ms)
{
    struct timespec delay = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&delay, NULL);
}

static inline int open_bundle(void **state)
{
    sl_bundle_options options = sl_bundle_options_default();
    options.n_threads = 2;
    return sl_bundle_open(SL_TEST_GOLDEN_DIR "/tiny_llama.gguf", &options, &bundle, NULL) != SL_OK;
}

static inline int close_bundle(void **state)
{
    sl_bundle_close(bundle);
    return 0;
}

/* Request i: its own prompt and seed. */
static inline sl_request make_request(uint32_t i, uint32_t *prompt)
{
    sl_request request = {.prompt = prompt, .n_prompt = 3 + i * 7 % (MAX_PROMPT - 3), .max_tokens = N_TOKENS};
    for (size_t k = 0; k < request.n_prompt; k++)
        prompt[k] = (uint32_t)((i + 1) * 31 + k * 17) % 200;
    request.sampling = sl_sample_params_default();
    request.sampling.temperature = 1;
    request.sampling.seed = i;
    request.sampling.n_logprobs = i % 3;
    return request;
}

typedef struct {
    uint32_t n, tokens[N_TOKENS];
    float logprobs[N_TOKENS];
    char text[1024];
    size_t n_text;
    bool accepted, finished;
    sl_finish finish;
    sl_err error;
    int64_t queue_us, prefill_us;
} answer;

static inline void add_event(answer *a, const sl_event *event)
{
    if (event->kind == SL_EVENT_TOKEN) {
        assert_true(a->n < N_TOKENS);
        a->logprobs[a->n] = event->sampled.logprob;
        a->tokens[a->n++] = event->sampled.token;
    } else {
        a->finished = true;
        a->finish = event->finish;
        a->error = event->error;
        a->queue_us = event->queue_us;
        a->prefill_us = event->prefill_us;
    }
    assert_true(a->n_text + event->n_bytes <= sizeof a->text);
    if (event->n_bytes)
        memcpy(a->text + a->n_text, event->bytes, event->n_bytes);
    a->n_text += event->n_bytes;
}

static inline void on_event(void *user, const sl_event *event)
{
    add_event(user, event);
}

/* Answers of the engine without a service, one request at a time. */
static inline void answer_alone(answer *answers)
{
    sl_engine *engine;
    sl_engine_model model = sl_engine_model_of(sl_bundle_model(bundle));
    sl_engine_options options = {.context = 128, .token_bytes = sl_bundle_token_bytes(bundle)};
    sl_err err;
    assert_int_equal(sl_engine_open(&model, &options, sl_bundle_threads(bundle), &engine, &err), SL_OK);
    for (uint32_t i = 0; i < N_REQUESTS; i++) {
        uint32_t prompt[MAX_PROMPT];
        sl_request request = make_request(i, prompt);
        request.on_event = on_event;
        request.user = &answers[i];
        uint64_t id;
        assert_int_equal(sl_engine_submit(engine, &request, &id, &err), SL_OK);
        for (bool busy = true; busy;)
            assert_int_equal(sl_engine_step(engine, sl_clock_us(), &busy, &err), SL_OK);
        assert_true(answers[i].finished);
    }
    sl_engine_close(engine);
}

/* A service with an inbox whose wake counts a semaphore up. */
typedef struct {
    sl_service *service;
    sl_inbox *inbox;
    atomic_int n_wakes;
} fixture;

static inline void count_wake(void *user)
{
    atomic_fetch_add(&((fixture *)user)->n_wakes, 1);
}

static inline void open_service(fixture *f, sl_service_options options)
{
    sl_err err = {0};
    f->n_wakes = 0;
    options.engine.context = options.engine.context ? options.engine.context : 128;
    if (sl_service_open(bundle, &options, &f->service, &err) != SL_OK)
        fail_msg("%s", err.message);
    assert_int_equal(sl_inbox_open(f->service, count_wake, f, &f->inbox, &err), SL_OK);
}

static inline void close_service(fixture *f)
{
    sl_inbox_close(f->inbox);
    sl_service_close(f->service);
}

/* Reads a ticket until it is finished. */
static inline void read_to_end(sl_ticket *ticket, answer *a)
{
    sl_ticket_event e;
    int64_t until_us = sl_clock_us() + 60 * 1000000LL;
    while (!a->finished) {
        assert_true(sl_clock_us() < until_us);
        if (!sl_ticket_next(ticket, &e)) {
            pause_ms(1);
        } else if (e.kind == SL_TICKET_ACCEPTED) {
            assert_false(a->accepted || a->n || a->finished);
            a->accepted = true;
        } else {
            add_event(a, &e.event);
        }
    }
    assert_false(sl_ticket_next(ticket, &e));
}

static inline void assert_same(const answer *a, const answer *b)
{
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->finish, b->finish);
    assert_memory_equal(a->tokens, b->tokens, a->n * sizeof *a->tokens);
    assert_memory_equal(a->logprobs, b->logprobs, a->n * sizeof *a->logprobs);
    assert_int_equal(a->n_text, b->n_text);
    assert_memory_equal(a->text, b->text, a->n_text);
}

static inline sl_ticket *submit(fixture *f, uint32_t i, uint32_t max_tokens, sl_err *err)
{
    uint32_t prompt[MAX_PROMPT];
    sl_request request = make_request(i, prompt);
    sl_ticket *ticket;
    request.max_tokens = max_tokens;
    return sl_service_submit(f->service, f->inbox, &request, NULL, &ticket, err) == SL_OK ? ticket : NULL;
}

#endif
