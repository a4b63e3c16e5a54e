#define _GNU_SOURCE
/* The service and time: a hung engine, who runs during a step, predicted waits, an idle engine, batches that are collected. */
#include "service_kit.h"

#include <sys/resource.h>

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
    for (int64_t until_us = sl_clock_us() + 60 * 1000000LL; sl_service_health(f.service, sl_clock_us(), &err) == SL_OK;)
        assert_true(sl_clock_us() < until_us);
    assert_int_equal(err.code, SL_ERR_STATE);
    sl_ticket *waiting = submit(&f, 1, 2, &err); /* none of these waits for the engine */
    assert_non_null(waiting);
    sl_ticket_cancel(ticket);
    sl_ticket_release(waiting);
    atomic_store(&hang, false);
    read_to_end(ticket, &a);
    /* The step that told the end may not be over yet. */
    for (int64_t until_us = sl_clock_us() + 60 * 1000000LL; sl_service_health(f.service, sl_clock_us(), &err) != SL_OK;)
        assert_true(sl_clock_us() < until_us);
    sl_ticket_release(ticket);
    close_service(&f);
}

/* Holds the engine when the logits of a prompt's position, or a later one, come. */
typedef struct {
    uint32_t from;
    atomic_bool hold, held;
} holder;

static void hold_from(void *user, uint32_t position, const float *logits)
{
    holder *h = user;
    while (position >= h->from && atomic_load(&h->hold)) {
        atomic_store(&h->held, true);
        pause_ms(1);
    }
}

static sl_ticket *submit_held(fixture *f, uint32_t i, holder *h)
{
    uint32_t prompt[MAX_PROMPT];
    sl_request request = make_request(i, prompt);
    sl_ticket *ticket;
    assert_true(h->from < request.n_prompt);
    atomic_store(&h->hold, true);
    request.on_logits = hold_from;
    assert_int_equal(sl_service_submit(f->service, f->inbox, &request, h, &ticket, NULL), SL_OK);
    return ticket;
}

static void wait_held(holder *h)
{
    for (int64_t until_us = sl_clock_us() + 60 * 1000000LL; !atomic_load(&h->held); pause_ms(1))
        assert_true(sl_clock_us() < until_us);
}

/* A step that begins with the end of one and goes on with another's first rows: one of them runs all the time. */
static void test_one_after_the_other(void **state)
{
    enum { CHUNK = 4 };
    fixture f;
    answer a = {0}, b = {0};
    holder first = {.from = CHUNK}, second = {0};
    sl_service_stats stats;
    open_service(&f, (sl_service_options){.engine = {.n_sequences = 1, .chunk = CHUNK}});
    sl_ticket *ended = submit_held(&f, 1, &first); /* in its second step */
    wait_held(&first);
    sl_ticket *begun = submit_held(&f, 0, &second);
    sl_ticket_cancel(ended);
    atomic_store(&first.hold, false);
    wait_held(&second);
    sl_service_get_stats(f.service, &stats);
    assert_int_equal(stats.n_running, 1);
    assert_int_equal(stats.n_waiting, 0);
    assert_int_equal(stats.engine.n_finished[SL_FINISH_CANCELLED], 1);
    atomic_store(&second.hold, false);
    read_to_end(ended, &a);
    read_to_end(begun, &b);
    assert_int_equal(a.finish, SL_FINISH_CANCELLED);
    assert_int_equal(b.finish, SL_FINISH_LENGTH);
    sl_ticket_release(ended);
    sl_ticket_release(begun);
    close_service(&f);
}

static void test_predictions(void **state)
{
    enum { MOST = 4 };
    fixture f;
    sl_err err = {0};
    sl_ticket *tickets[MOST + 1];
    sl_ticket_event e;
    uint32_t prompt[MAX_PROMPT], long_prompt[200] = {0};
    sl_request holding = make_request(0, prompt), request = make_request(1, prompt);
    holding.max_tokens = 0;
    holding.on_logits = hold_engine;
    open_service(&f, (sl_service_options){.max_tickets = 1});
    atomic_store(&hang, true);
    sl_ticket *ticket;
    assert_int_equal(sl_service_submit(f.service, f.inbox, &holding, NULL, &ticket, &err), SL_OK);
    assert_null(submit(&f, 1, 1, &err)); /* full, but it can still be asked */
    for (int i = 0; i < MOST; i++) {
        request.prompt = i == 1 ? long_prompt : prompt;
        request.n_prompt = i == 1 ? 200 : 10;
        assert_int_equal(sl_service_predict(f.service, f.inbox, &request, NULL, &tickets[i], &err), SL_OK);
    }
    assert_int_equal(sl_service_predict(f.service, f.inbox, &request, NULL, &tickets[MOST], &err), SL_ERR_LIMIT);
    atomic_store(&hang, false);
    for (int i = 0; i < MOST; i++) {
        while (!sl_ticket_next(tickets[i], &e))
            pause_ms(1);
        if (i == 1) { /* never fits */
            assert_int_equal(e.kind, SL_TICKET_FINISHED);
            assert_int_equal(e.event.error.code, SL_ERR_LIMIT);
        } else {
            assert_int_equal(e.kind, SL_TICKET_PREDICTED);
            assert_in_range(e.wait_us, 1, 60 * 1000000);
        }
        assert_false(sl_ticket_next(tickets[i], &e));
        sl_ticket_release(tickets[i]);
    }
    sl_ticket_release(ticket);
    assert_int_equal(sl_service_predict(f.service, f.inbox, &request, NULL, &ticket, &err), SL_OK);
    sl_ticket_release(ticket); /* before its answer */
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

/* While a batch is collected nobody works; a full one begins at once. */
static void test_dynamic_batch(void **state)
{
    enum { WAIT_MS = 500 };
    fixture f;
    answer a = {0}, b = {0};
    open_service(&f, (sl_service_options){
                         .engine = {.n_sequences = 2, .batching = SL_BATCHING_DYNAMIC, .max_wait_us = WAIT_MS * 1000},
                         .hang_us = WAIT_MS * 1000 / 2});
    int64_t start_us = sl_clock_us(), before_us = cpu_us();
    sl_ticket *first = submit(&f, 0, 2, NULL);
    pause_ms(WAIT_MS * 3 / 5);
    assert_true(cpu_us() - before_us < 20000);
    assert_int_equal(sl_service_health(f.service, sl_clock_us(), NULL), SL_OK);
    read_to_end(first, &a);
    assert_true(sl_clock_us() - start_us >= WAIT_MS * 1000);
    assert_true(a.queue_us >= WAIT_MS * 1000 && a.queue_us < a.prefill_us);
    sl_ticket_release(first);
    first = submit(&f, 0, 2, NULL);
    start_us = sl_clock_us();
    sl_ticket *second = submit(&f, 1, 2, NULL);
    read_to_end(second, &b);
    assert_true(sl_clock_us() - start_us < WAIT_MS * 1000);
    sl_ticket_release(first);
    sl_ticket_release(second);
    close_service(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_health), cmocka_unit_test(test_one_after_the_other), cmocka_unit_test(test_predictions),
        cmocka_unit_test(test_idle),   cmocka_unit_test(test_dynamic_batch),
    };
    return cmocka_run_group_tests(tests, open_bundle, close_bundle);
}
