#define _GNU_SOURCE
/* The service: requests from several threads at once, cancels, slow readers, limits, a hung engine. The yardstick for
 * answers is the engine on its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "app/jobs.h"
#include "app/service.h"
#include "base/clock.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

enum { N_REQUESTS = 12, N_TOKENS = 24, MAX_PROMPT = 40 };

static sl_bundle *bundle;

static void pause_ms(int ms)
{
    struct timespec delay = {ms / 1000, ms % 1000 * 1000000L};
    nanosleep(&delay, NULL);
}

static int open_bundle(void **state)
{
    sl_bundle_options options = sl_bundle_options_default();
    options.n_threads = 2;
    return sl_bundle_open(SL_TEST_GOLDEN_DIR "/tiny_llama.gguf", &options, &bundle, NULL) != SL_OK;
}

static int close_bundle(void **state)
{
    sl_bundle_close(bundle);
    return 0;
}

/* Request i: its own prompt and seed. */
static sl_request make_request(uint32_t i, uint32_t *prompt)
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
} answer;

static void add_event(answer *a, const sl_event *event)
{
    if (event->kind == SL_EVENT_TOKEN) {
        assert_true(a->n < N_TOKENS);
        a->logprobs[a->n] = event->sampled.logprob;
        a->tokens[a->n++] = event->sampled.token;
    } else {
        a->finished = true;
        a->finish = event->finish;
        a->error = event->error;
    }
    assert_true(a->n_text + event->n_bytes <= sizeof a->text);
    if (event->n_bytes)
        memcpy(a->text + a->n_text, event->bytes, event->n_bytes);
    a->n_text += event->n_bytes;
}

static void on_event(void *user, const sl_event *event)
{
    add_event(user, event);
}

/* Answers of the engine without a service, one request at a time. */
static void answer_alone(answer *answers)
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

static void count_wake(void *user)
{
    atomic_fetch_add(&((fixture *)user)->n_wakes, 1);
}

static void open_service(fixture *f, sl_service_options options)
{
    sl_err err = {0};
    f->n_wakes = 0;
    options.engine.context = options.engine.context ? options.engine.context : 128;
    if (sl_service_open(bundle, &options, &f->service, &err) != SL_OK)
        fail_msg("%s", err.message);
    assert_int_equal(sl_inbox_open(f->service, count_wake, f, &f->inbox, &err), SL_OK);
}

static void close_service(fixture *f)
{
    sl_inbox_close(f->inbox);
    sl_service_close(f->service);
}

/* Reads a ticket until it is finished. */
static void read_to_end(sl_ticket *ticket, answer *a)
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

static void assert_same(const answer *a, const answer *b)
{
    assert_int_equal(a->n, b->n);
    assert_int_equal(a->finish, b->finish);
    assert_memory_equal(a->tokens, b->tokens, a->n * sizeof *a->tokens);
    assert_memory_equal(a->logprobs, b->logprobs, a->n * sizeof *a->logprobs);
    assert_int_equal(a->n_text, b->n_text);
    assert_memory_equal(a->text, b->text, a->n_text);
}

/* Several threads submit to one service; each has an inbox of its own and reads what its inbox offers. */
typedef struct {
    sl_service *service;
    uint32_t first;
    const char *problem;
    answer answers[N_REQUESTS];
} client;

/* cmocka's assertions are for the main thread only. */
static const char *run_client(client *c, fixture *f)
{
    uint32_t n_left = N_REQUESTS;
    if (sl_inbox_open(c->service, count_wake, f, &f->inbox, NULL) != SL_OK)
        return "no inbox";
    for (uint32_t k = 0; k < N_REQUESTS; k++) {
        uint32_t i = (c->first + k) % N_REQUESTS, prompt[MAX_PROMPT];
        sl_request request = make_request(i, prompt);
        sl_ticket *ticket;
        if (sl_service_submit(c->service, f->inbox, &request, &c->answers[i], &ticket, NULL) != SL_OK)
            return "refused";
        memset(prompt, 0xff, sizeof prompt); /* it was copied */
    }
    while (n_left > 0) {
        sl_ticket *ticket = sl_inbox_take(f->inbox);
        if (!ticket) {
            pause_ms(1);
            continue;
        }
        answer *a = sl_ticket_user(ticket);
        for (sl_ticket_event e; !a->finished && sl_ticket_next(ticket, &e);)
            if (e.kind != SL_TICKET_ACCEPTED)
                add_event(a, &e.event);
        if (a->finished) {
            sl_ticket_release(ticket);
            n_left--;
        }
    }
    sl_inbox_close(f->inbox);
    return f->n_wakes > 0 ? NULL : "never woken";
}

static void *client_main(void *user)
{
    client *c = user;
    fixture f = {.service = c->service};
    c->problem = run_client(c, &f);
    return NULL;
}

static void test_many_threads(void **state)
{
    answer expected[N_REQUESTS] = {0};
    answer_alone(expected);
    fixture f;
    open_service(&f, (sl_service_options){.engine = {.n_sequences = 5}});
    pthread_t threads[3];
    static client clients[3];
    for (uint32_t i = 0; i < 3; i++) {
        clients[i] = (client){.service = f.service, .first = i * 4};
        assert_int_equal(pthread_create(&threads[i], NULL, client_main, &clients[i]), 0);
    }
    for (uint32_t i = 0; i < 3; i++) {
        pthread_join(threads[i], NULL);
        assert_null(clients[i].problem);
        for (uint32_t k = 0; k < N_REQUESTS; k++)
            assert_same(&clients[i].answers[k], &expected[k]);
    }
    sl_service_stats stats;
    sl_service_get_stats(f.service, &stats);
    assert_int_equal(stats.n_tickets + stats.n_waiting + stats.n_running, 0);
    close_service(&f);
}

static sl_ticket *submit(fixture *f, uint32_t i, uint32_t max_tokens, sl_err *err)
{
    uint32_t prompt[MAX_PROMPT];
    sl_request request = make_request(i, prompt);
    sl_ticket *ticket;
    request.max_tokens = max_tokens;
    return sl_service_submit(f->service, f->inbox, &request, NULL, &ticket, err) == SL_OK ? ticket : NULL;
}

static void test_refusals(void **state)
{
    fixture f;
    sl_err err;
    open_service(&f, (sl_service_options){.max_tickets = 2});
    answer a = {0};
    uint32_t prompt[200] = {0}, unknown = UINT32_MAX - 1;
    sl_request request = {.prompt = prompt, .n_prompt = 200, .max_tokens = 1, .sampling = sl_sample_params_default()};
    sl_ticket *first, *second;
    assert_int_equal(sl_service_submit(f.service, f.inbox, &request, NULL, &first, &err), SL_OK);
    read_to_end(first, &a); /* longer than the context: the engine says so */
    assert_false(a.accepted);
    assert_int_equal(a.finish, SL_FINISH_ERROR);
    assert_int_equal(a.error.code, SL_ERR_LIMIT);
    request = (sl_request){.prompt = &unknown, .n_prompt = 1, .max_tokens = 1, .sampling = sl_sample_params_default()};
    assert_int_equal(sl_service_submit(f.service, f.inbox, &request, NULL, &second, &err), SL_OK);
    assert_null(submit(&f, 0, 1, &err)); /* two are not released yet */
    assert_int_equal(err.code, SL_ERR_LIMIT);
    a = (answer){0};
    read_to_end(second, &a);
    assert_int_equal(a.error.code, SL_ERR_ARGUMENT);
    sl_ticket_release(first);
    sl_ticket_release(second);
    request = (sl_request){.max_tokens = 1, .sampling = sl_sample_params_default()};
    assert_int_equal(sl_service_submit(f.service, f.inbox, &request, NULL, &first, &err), SL_OK);
    a = (answer){0};
    read_to_end(first, &a); /* no prompt, and null pointers */
    assert_int_equal(a.error.code, SL_ERR_ARGUMENT);
    sl_ticket_release(first);
    sl_service_drain(f.service);
    assert_null(submit(&f, 0, 1, &err));
    assert_int_equal(err.code, SL_ERR_STATE);
    sl_service_stats stats;
    sl_service_get_stats(f.service, &stats);
    assert_int_equal(stats.n_refused, 1);
    close_service(&f);
}

/* Cancelled and released at any moment; the service must end with nothing left, and others' answers stay the same. */
static void test_cancel(void **state)
{
    answer expected[N_REQUESTS] = {0}, cancelled = {0}, kept = {0};
    answer_alone(expected);
    fixture f;
    open_service(&f, (sl_service_options){.engine = {.n_sequences = 3}});
    sl_ticket *witness = submit(&f, 5, N_TOKENS, NULL);
    for (uint32_t i = 0; i < 60; i++) {
        sl_ticket *ticket = submit(&f, i % N_REQUESTS, N_TOKENS, NULL);
        if (i % 3 == 1)
            pause_ms((int)(i % 5));
        if (i % 4 == 0)
            sl_ticket_cancel(ticket);
        sl_ticket_release(ticket);
    }
    sl_ticket *ticket = submit(&f, 0, 80, NULL);
    sl_ticket_cancel(ticket);
    sl_ticket_cancel(ticket);
    read_to_end(ticket, &cancelled);
    assert_int_equal(cancelled.finish, SL_FINISH_CANCELLED);
    sl_ticket_cancel(ticket); /* over already: no effect */
    sl_ticket_release(ticket);
    read_to_end(witness, &kept);
    assert_same(&kept, &expected[5]);
    sl_ticket_release(witness);
    sl_ticket_release(submit(&f, 1, 80, NULL)); /* close ends it */
    close_service(&f);
}

static void test_slow_reader(void **state)
{
    answer expected[N_REQUESTS] = {0}, slow = {0}, other = {0};
    answer_alone(expected);
    fixture f;
    sl_service_stats stats;
    /* Room for a few tokens: for all of one request, for some of the other. */
    open_service(&f, (sl_service_options){.engine = {.n_sequences = 2}, .event_bytes = 400});
    sl_ticket *unread = submit(&f, 2, N_TOKENS, NULL), *read = submit(&f, 3, 4, NULL);
    read_to_end(read, &other);
    assert_int_equal(other.finish, SL_FINISH_LENGTH);
    assert_memory_equal(other.tokens, expected[3].tokens, 4 * sizeof *other.tokens);
    do {
        pause_ms(1);
        sl_service_get_stats(f.service, &stats);
    } while (stats.n_overflow == 0 || stats.n_running > 0);
    read_to_end(unread, &slow);
    assert_int_equal(slow.finish, SL_FINISH_ERROR);
    assert_int_equal(slow.error.code, SL_ERR_LIMIT);
    assert_in_range(slow.n, 1, N_TOKENS - 1);
    assert_memory_equal(slow.tokens, expected[2].tokens, slow.n * sizeof *slow.tokens);
    sl_ticket_release(unread);
    sl_ticket_release(read);
    close_service(&f);
}

static void test_stop_string(void **state)
{
    answer expected[N_REQUESTS] = {0}, stopped = {0};
    answer_alone(expected);
    fixture f;
    open_service(&f, (sl_service_options){0});
    uint32_t prompt[MAX_PROMPT];
    sl_request request = make_request(4, prompt);
    assert_true(expected[4].n_text > 6);
    sl_bytes stop = {expected[4].text + 4, 2};
    const char *first = memmem(expected[4].text, expected[4].n_text, stop.bytes, 2);
    request.stop_strings = (sl_bytes_list){&stop, 1};
    sl_ticket *ticket;
    assert_int_equal(sl_service_submit(f.service, f.inbox, &request, NULL, &ticket, NULL), SL_OK);
    read_to_end(ticket, &stopped);
    assert_int_equal(stopped.finish, SL_FINISH_STOP);
    assert_int_equal(stopped.n_text, first - expected[4].text);
    assert_memory_equal(stopped.text, expected[4].text, stopped.n_text);
    sl_ticket_release(ticket);
    close_service(&f);
}

/* ---- health ---- */

static atomic_bool hang;

static void hold_engine(void *user, uint32_t position, const float *logits)
{
    while (atomic_load(&hang))
        pause_ms(1);
}

static void test_health(void **state)
{
    fixture f;
    sl_err err = {0};
    open_service(&f, (sl_service_options){.hang_us = 50000});
    pause_ms(100);
    assert_int_equal(sl_service_health(f.service, sl_clock_us(), &err), SL_OK); /* idle is not hung */
    uint32_t prompt[MAX_PROMPT];
    sl_request request = make_request(0, prompt);
    request.max_tokens = 0;
    request.on_logits = hold_engine;
    atomic_store(&hang, true);
    sl_ticket *ticket;
    answer a = {0};
    assert_int_equal(sl_service_submit(f.service, f.inbox, &request, NULL, &ticket, &err), SL_OK);
    pause_ms(150);
    assert_int_equal(sl_service_health(f.service, sl_clock_us(), &err), SL_ERR_STATE);
    sl_ticket *waiting = submit(&f, 1, 2, &err); /* none of these waits for the engine */
    assert_non_null(waiting);
    sl_ticket_cancel(ticket);
    sl_ticket_release(waiting);
    atomic_store(&hang, false);
    read_to_end(ticket, &a);
    assert_int_equal(sl_service_health(f.service, sl_clock_us(), &err), SL_OK);
    sl_ticket_release(ticket);
    close_service(&f);
}

static int64_t cpu_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1000000LL + usage.ru_utime.tv_usec +
           usage.ru_stime.tv_usec;
}

static void test_idle(void **state)
{
    fixture f;
    answer a = {0};
    open_service(&f, (sl_service_options){0});
    sl_ticket *ticket = submit(&f, 0, N_TOKENS, NULL);
    read_to_end(ticket, &a);
    sl_ticket_release(ticket);
    pause_ms(50); /* workers go to sleep */
    int64_t before_us = cpu_us();
    pause_ms(1000);
    assert_true(cpu_us() - before_us < 1000); /* 0.1 % of a core */
    close_service(&f);
}

/* ---- jobs ---- */

static atomic_int n_done;

static void count_job(void *user)
{
    while (user && atomic_load(&hang))
        pause_ms(1);
    atomic_fetch_add(&n_done, 1);
}

static void test_jobs(void **state)
{
    sl_jobs *jobs;
    sl_err err;
    int n_taken = 0;
    assert_int_equal(sl_jobs_open(0, 1, &jobs, &err), SL_ERR_ARGUMENT);
    assert_int_equal(sl_jobs_open(2, 5, &jobs, &err), SL_OK);
    atomic_store(&hang, true);
    for (int i = 0; i < 20; i++)
        n_taken += sl_jobs_submit(jobs, count_job, &err, &err) == SL_OK;
    assert_in_range(n_taken, 5, 7); /* five wait, and each thread may have taken one */
    assert_int_equal(err.code, SL_ERR_LIMIT);
    atomic_store(&hang, false);
    sl_jobs_close(jobs);
    assert_int_equal(n_done, n_taken);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_threads), cmocka_unit_test(test_refusals),    cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_slow_reader),  cmocka_unit_test(test_stop_string), cmocka_unit_test(test_health),
        cmocka_unit_test(test_idle),         cmocka_unit_test(test_jobs),
    };
    return cmocka_run_group_tests(tests, open_bundle, close_bundle);
}
