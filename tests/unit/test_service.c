#define _GNU_SOURCE
/* The service: requests from several threads at once, cancels, slow readers, limits, what a ticket carries. The yardstick
 * for answers is the engine on its own. */
#include "service_kit.h"

#include <pthread.h>
#include <sched.h>
#include <stdlib.h>

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

/* Who has read an answer's end finds it in the statistics, however soon it looks. */
static void test_ends_are_counted(void **state)
{
    enum { N = 60 };
    fixture f;
    open_service(&f, (sl_service_options){.engine = {.n_sequences = 5}});
    for (uint32_t i = 1; i <= N; i++) {
        sl_ticket *ticket = submit(&f, i % N_REQUESTS, 1, NULL);
        sl_ticket_event e = {0};
        int64_t until_us = sl_clock_us() + 60 * 1000000LL;
        while (e.kind != SL_TICKET_FINISHED)
            if (!sl_ticket_next(ticket, &e)) {
                assert_true(sl_clock_us() < until_us);
                sched_yield();
            }
        sl_service_stats stats;
        sl_service_get_stats(f.service, &stats);
        assert_int_equal(stats.engine.n_finished[SL_FINISH_LENGTH], i);
        assert_int_equal(stats.engine.generated_tokens, i);
        assert_int_equal(stats.n_running + stats.n_waiting + stats.engine.n_blocks_used, 0);
        sl_ticket_release(ticket);
    }
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
    /* Its end may come first, when this thread gets no CPU for so long: then again. */
    for (int i = 0; i < 50 && cancelled.finish != SL_FINISH_CANCELLED; i++) {
        cancelled = (answer){0};
        sl_ticket *ticket = submit(&f, 0, N_TOKENS, NULL);
        sl_ticket_cancel(ticket);
        sl_ticket_cancel(ticket);
        read_to_end(ticket, &cancelled);
        sl_ticket_cancel(ticket); /* over already: no effect */
        sl_ticket_release(ticket);
    }
    assert_int_equal(cancelled.finish, SL_FINISH_CANCELLED);
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

/* ---- what one ticket carries ---- */

enum { MAX_CHOICES = 4, MAX_EMBD = 256 };

/* All events of one request. */
typedef struct {
    answer choices[MAX_CHOICES];
    float prompt[MAX_PROMPT], top[MAX_PROMPT];
    uint32_t n_prompt_events, n_embd;
    float embedding[MAX_EMBD];
} answers;

static void add_any(void *user, const sl_event *event)
{
    answers *a = user;
    assert_true(event->choice < MAX_CHOICES);
    if (event->kind == SL_EVENT_PROMPT) {
        assert_int_equal(event->position, ++a->n_prompt_events);
        a->prompt[event->position] = event->sampled.logprob;
        a->top[event->position] = event->sampled.n_top ? event->sampled.top[event->sampled.n_top - 1].logprob : 0;
    } else if (event->kind == SL_EVENT_EMBEDDING) {
        assert_false(a->choices[0].finished);
        a->n_embd = event->n_embedding;
        memcpy(a->embedding, event->embedding, event->n_embedding * sizeof *a->embedding);
    } else {
        assert_false(a->choices[event->choice].finished);
        add_event(&a->choices[event->choice], event);
    }
}

/* The engine's answer to a request, without a service. */
static void ask_engine(sl_request request, answers *a)
{
    sl_engine *engine;
    sl_engine_model model = sl_engine_model_of(sl_bundle_model(bundle));
    sl_engine_options options = {
        .context = 128, .n_sequences = MAX_CHOICES, .token_bytes = sl_bundle_token_bytes(bundle)};
    assert_int_equal(sl_engine_open(&model, &options, sl_bundle_threads(bundle), &engine, NULL), SL_OK);
    request.on_event = add_any;
    request.user = a;
    assert_int_equal(sl_engine_submit(engine, &request, NULL, NULL), SL_OK);
    for (bool busy = true; busy;)
        assert_int_equal(sl_engine_step(engine, sl_clock_us(), &busy, NULL), SL_OK);
    sl_engine_close(engine);
}

/* The service's. late: nothing is read before the engine has done with it. */
static void ask_service(fixture *f, const sl_request *request, bool late, answers *a)
{
    sl_ticket *ticket;
    sl_ticket_event e;
    sl_service_stats before, stats;
    uint32_t n_left = SL_MAX(request->n_choices, 1);
    int64_t until_us = sl_clock_us() + 60 * 1000000LL;
    sl_service_get_stats(f->service, &before);
    assert_int_equal(sl_service_submit(f->service, f->inbox, request, NULL, &ticket, NULL), SL_OK);
    do {
        assert_true(sl_clock_us() < until_us);
        pause_ms(1);
        sl_service_get_stats(f->service, &stats);
    } while (late && stats.engine.n_finished[SL_FINISH_LENGTH] < before.engine.n_finished[SL_FINISH_LENGTH] + n_left);
    while (n_left > 0) {
        assert_true(sl_clock_us() < until_us);
        if (!sl_ticket_next(ticket, &e)) {
            pause_ms(1);
            continue;
        }
        n_left -= e.kind == SL_TICKET_FINISHED;
        if (e.kind != SL_TICKET_ACCEPTED)
            add_any(a, &e.event);
    }
    assert_false(sl_ticket_next(ticket, &e));
    sl_ticket_release(ticket);
}

static void test_choices(void **state)
{
    static answers alone, served, rest;
    uint32_t prompt[MAX_PROMPT];
    fixture f;
    sl_service_stats stats;
    sl_request request = make_request(2, prompt);
    request.n_choices = 3;
    ask_engine(request, &alone);
    open_service(&f, (sl_service_options){.engine = {.n_sequences = 4}, .max_tickets = 3});
    ask_service(&f, &request, false, &served);
    request.first_choice = 1;
    request.n_choices = 2;
    ask_service(&f, &request, true, &rest);
    for (uint32_t i = 0; i < 3; i++)
        assert_same(&served.choices[i], &alone.choices[i]);
    for (uint32_t i = 0; i < 2; i++)
        assert_same(&rest.choices[i], &alone.choices[i + 1]);
    assert_memory_not_equal(alone.choices[0].tokens, alone.choices[1].tokens, sizeof alone.choices[0].tokens);
    sl_ticket *two, *more;
    sl_err err;
    assert_int_equal(sl_service_submit(f.service, f.inbox, &request, NULL, &two, &err), SL_OK);
    assert_int_equal(sl_service_submit(f.service, f.inbox, &request, NULL, &more, &err), SL_ERR_LIMIT);
    request.n_choices = 4; /* never */
    assert_int_equal(sl_service_submit(f.service, f.inbox, &request, NULL, &more, &err), SL_ERR_LIMIT);
    sl_ticket_release(two); /* while its choices run */
    do {
        pause_ms(1);
        sl_service_get_stats(f.service, &stats);
    } while (stats.n_tickets > 0);
    assert_int_equal(stats.n_running + stats.n_waiting, 0);
    close_service(&f);
}

/* Tickets that are read without being taken stand in the inbox once, whatever comes for them. */
static void test_reading_untaken(void **state)
{
    enum { N = 3 };
    fixture f;
    sl_ticket *tickets[N], *taken;
    open_service(&f, (sl_service_options){.engine = {.n_sequences = N}});
    for (uint32_t i = 0; i < N; i++)
        tickets[i] = submit(&f, i, N_TOKENS, NULL);
    for (uint32_t i = 0; i < N; i++) {
        answer a = {0};
        read_to_end(tickets[i], &a);
    }
    uint32_t n_taken = 0, seen = 0;
    while ((taken = sl_inbox_take(f.inbox)) != NULL && n_taken++ < N)
        for (uint32_t i = 0; i < N; i++)
            seen |= (uint32_t)(taken == tickets[i]) << i;
    assert_int_equal(n_taken, N);
    assert_int_equal(seen, (1 << N) - 1);
    for (uint32_t i = 0; i < N; i++)
        sl_ticket_release(tickets[i]);
    close_service(&f);
}

/* More choices than the engine has sequences: each gets the engine's reason. */
static void test_refused_choices(void **state)
{
    uint32_t prompt[MAX_PROMPT];
    fixture f;
    sl_ticket *ticket;
    sl_ticket_event e;
    sl_request request = make_request(2, prompt);
    request.n_choices = 3;
    open_service(&f, (sl_service_options){.engine = {.n_sequences = 2}});
    assert_int_equal(sl_service_submit(f.service, f.inbox, &request, NULL, &ticket, NULL), SL_OK);
    for (uint32_t i = 0; i < 3; i++) {
        while (!sl_ticket_next(ticket, &e))
            pause_ms(1);
        assert_int_equal(e.kind, SL_TICKET_FINISHED);
        assert_int_equal(e.event.choice, i);
        assert_int_equal(e.event.error.code, SL_ERR_LIMIT);
    }
    sl_ticket_release(ticket);
    close_service(&f);
}

static void test_prompt_logprobs(void **state)
{
    static answers alone, served;
    uint32_t prompt[MAX_PROMPT];
    fixture f;
    sl_request request = make_request(5, prompt);
    request.prompt_logprobs = true;
    request.n_prompt_logprobs = 4;
    ask_engine(request, &alone);
    assert_int_equal(alone.n_prompt_events, request.n_prompt - 1);
    /* No room for the tokens of a slow reader, but for all of the prompt. */
    open_service(&f, (sl_service_options){.event_bytes = 4000});
    ask_service(&f, &request, true, &served);
    assert_int_equal(served.n_prompt_events, alone.n_prompt_events);
    assert_memory_equal(served.prompt, alone.prompt, sizeof alone.prompt);
    assert_memory_equal(served.top, alone.top, sizeof alone.top);
    assert_same(&served.choices[0], &alone.choices[0]);
    close_service(&f);
}

static void test_embedding(void **state)
{
    static answers alone, served;
    uint32_t prompt[MAX_PROMPT];
    fixture f;
    sl_request request = make_request(7, prompt);
    request.max_tokens = 0;
    request.pooling = SL_POOLING_MEAN;
    request.normalise = true;
    ask_engine(request, &alone);
    open_service(&f, (sl_service_options){0});
    ask_service(&f, &request, true, &served);
    assert_true(alone.n_embd > 0 && alone.n_embd == sl_service_embedding_length(f.service));
    assert_int_equal(served.n_embd, alone.n_embd);
    assert_memory_equal(served.embedding, alone.embedding, alone.n_embd * sizeof *alone.embedding);
    close_service(&f);
}

/* What the KV memory holds of one request bounds the context, whoever opens the service. */
static void test_context_that_fits(void **state)
{
    fixture f;
    answer a = {0};
    sl_err err;
    uint64_t per_token = sl_model_get_info(sl_bundle_model(bundle))->kv_bytes_per_token;
    sl_engine_options engine = {.context = 128, .n_sequences = 3, .kv_bytes = 48 * per_token};
    assert_int_equal(sl_service_fit_context(bundle, &engine, &err), SL_OK);
    assert_int_equal(engine.context, 48);
    engine.context = 32;
    assert_int_equal(sl_service_fit_context(bundle, &engine, &err), SL_OK);
    assert_int_equal(engine.context, 32);
    open_service(&f, (sl_service_options){.engine = {.context = 128, .n_sequences = 3, .kv_bytes = 48 * per_token}});
    assert_int_equal(sl_service_context(f.service), 48);
    uint32_t prompt[48] = {3};
    sl_request request = {.prompt = prompt, .n_prompt = 40, .max_tokens = 100, .sampling = sl_sample_params_default()};
    sl_ticket *ticket;
    assert_int_equal(sl_service_submit(f.service, f.inbox, &request, NULL, &ticket, &err), SL_OK);
    read_to_end(ticket, &a);
    assert_int_equal(a.finish, SL_FINISH_LENGTH);
    assert_int_equal(a.n, 8);
    sl_ticket_release(ticket);
    request.n_prompt = 48;
    a = (answer){0};
    assert_int_equal(sl_service_submit(f.service, f.inbox, &request, NULL, &ticket, &err), SL_OK);
    read_to_end(ticket, &a);
    assert_int_equal(a.error.code, SL_ERR_LIMIT);
    assert_non_null(strstr(a.error.message, "48"));
    sl_ticket_release(ticket);
    close_service(&f);
}

/* Nothing may be chosen before min_tokens but what ends the answer: the request's own mistake, told at once. */
static void test_nothing_to_choose(void **state)
{
    fixture f;
    answer a = {0};
    uint32_t prompt[MAX_PROMPT], end = 5;
    sl_request request = make_request(1, prompt);
    sl_ticket *ticket;
    request.stop_tokens = request.sampling.allowed_tokens.tokens = &end;
    request.n_stop_tokens = request.sampling.allowed_tokens.n = 1;
    request.sampling.min_tokens = 2;
    open_service(&f, (sl_service_options){0});
    assert_int_equal(sl_service_submit(f.service, f.inbox, &request, NULL, &ticket, NULL), SL_OK);
    read_to_end(ticket, &a);
    assert_false(a.accepted);
    assert_int_equal(a.error.code, SL_ERR_ARGUMENT);
    assert_non_null(strstr(a.error.message, "min_tokens"));
    sl_ticket_release(ticket);
    request.sampling.min_tokens = 0;
    a = (answer){0};
    assert_int_equal(sl_service_submit(f.service, f.inbox, &request, NULL, &ticket, NULL), SL_OK);
    read_to_end(ticket, &a);
    assert_int_equal(a.finish, SL_FINISH_STOP);
    sl_ticket_release(ticket);
    close_service(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_many_threads),      cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_ends_are_counted),  cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_slow_reader),       cmocka_unit_test(test_stop_string),
        cmocka_unit_test(test_reading_untaken),   cmocka_unit_test(test_choices),
        cmocka_unit_test(test_refused_choices),   cmocka_unit_test(test_prompt_logprobs),
        cmocka_unit_test(test_embedding),         cmocka_unit_test(test_context_that_fits),
        cmocka_unit_test(test_nothing_to_choose),
    };
    return cmocka_run_group_tests(tests, open_bundle, close_bundle);
}
