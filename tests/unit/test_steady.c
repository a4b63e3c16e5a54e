/* A steady decode step allocates nothing: every call of malloc and its kin in this program is counted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model_run.h"

#include <stdatomic.h>

/* The sanitizers bring allocators of their own. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define OTHER_ALLOCATOR 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define OTHER_ALLOCATOR 1
#endif

static atomic_uint n_allocations;

#ifndef OTHER_ALLOCATOR
/* glibc's own names of what is replaced here. */
void *__libc_malloc(size_t n_bytes);
void *__libc_calloc(size_t count, size_t n_bytes);
void *__libc_realloc(void *old, size_t n_bytes);
void *__libc_memalign(size_t alignment, size_t n_bytes);

void *malloc(size_t n_bytes)
{
    atomic_fetch_add(&n_allocations, 1);
    return __libc_malloc(n_bytes);
}

void *calloc(size_t count, size_t n_bytes)
{
    atomic_fetch_add(&n_allocations, 1);
    return __libc_calloc(count, n_bytes);
}

void *realloc(void *old, size_t n_bytes)
{
    atomic_fetch_add(&n_allocations, 1);
    return __libc_realloc(old, n_bytes);
}

void *aligned_alloc(size_t alignment, size_t n_bytes)
{
    atomic_fetch_add(&n_allocations, 1);
    return __libc_memalign(alignment, n_bytes);
}
#endif

static void count_tokens(void *user, const sl_event *event)
{
    *(uint32_t *)user += event->kind == SL_EVENT_TOKEN;
}

/* Six sequences of different lengths decode over several block borders, sampled in different ways, one with two choices;
 * full blocks go into the prefix tree, and cached ones of earlier requests are evicted. */
static void test_decode_allocates_nothing(void **state)
{
    (void)state;
#ifdef OTHER_ALLOCATOR
    skip();
#endif
    run_setup setup = {.path = SL_TEST_GOLDEN_DIR "/tiny_gemma3.gguf",
                       .level = sl_level_best(),
                       .kv_type = SL_KV_F16,
                       .context = 128,
                       .n_sequences = 6,
                       .n_threads = 2,
                       .with_bytes = true};
    run_model run = run_open(&setup);
    uint32_t prompt[64], n_tokens = 0;
    sl_err err;
    bool busy;
    for (int round = 0; round < 3; round++) {
        for (uint32_t i = 0; i < 5; i++) {
            for (uint32_t t = 0; t < 64; t++)
                prompt[t] = (t * 7 + i * 31 + (uint32_t)round * 13) % 200;
            sl_request r = {.prompt = prompt,
                            .n_prompt = 20 + 9 * i,
                            .max_tokens = 70,
                            .n_choices = 1 + (i == 0),
                            .sampling = sl_sample_params_default(),
                            .on_event = count_tokens,
                            .user = &n_tokens};
            r.sampling.temperature = i % 2 ? 1.0f : 0.0f;
            r.sampling.repetition_penalty = i == 3 ? 1.1f : 1.0f;
            r.sampling.n_logprobs = i == 4 ? 5 : 0;
            run_require(sl_engine_submit(run.engine, &r, NULL, &err), &err);
        }
        sl_engine_statistics s = {0};
        for (int i = 0, n_after = 0; n_after < 3;
             i++) { /* prompts as the scheduler gives them rows, the copied block */
            run_require(sl_engine_step(run.engine, run_clock(NULL), &busy, &err), &err);
            sl_engine_stats(run.engine, &s);
            n_after += s.prompt_tokens == 190 * (uint64_t)(round + 1);
            assert_true(i < 18);
        }
        uint32_t before = atomic_load(&n_allocations), tokens_before = n_tokens;
        assert_true(before > 100); /* they are counted */
        for (int i = 0; i < 50; i++)
            run_require(sl_engine_step(run.engine, run_clock(NULL), &busy, &err), &err);
        assert_int_equal(n_tokens - tokens_before, 50 * 6);
        assert_int_equal(atomic_load(&n_allocations), before);
        run_until_idle(&run);
    }
    sl_engine_statistics statistics;
    sl_engine_stats(run.engine, &statistics);
    assert_true(statistics.n_blocks_cached > 50);
    run_close(&run);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_decode_allocates_nothing)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
