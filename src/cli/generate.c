#include "cli/generate.h"

#include "base/clock.h"
#include "cli/interrupt.h"
#include "cli/output.h"

#include <stdlib.h>
#include <string.h>

static sl_status add_text(sl_generation *generation, sl_bytes piece)
{
    sl_answer *answer = generation->answer;
    if (piece.n_bytes == 0)
        return SL_OK;
    if (answer->text_capacity - answer->n_bytes < piece.n_bytes) {
        size_t capacity = 2 * (answer->text_capacity + piece.n_bytes);
        char *grown = realloc(answer->text, capacity);
        if (grown == NULL)
            SL_FAIL(generation->err, SL_ERR_NOMEM, "out of memory for the answer");
        answer->text = grown;
        answer->text_capacity = capacity;
    }
    memcpy(answer->text + answer->n_bytes, piece.bytes, piece.n_bytes);
    answer->n_bytes += piece.n_bytes;
    if (generation->options->stream) {
        sl_out_foreign(piece.bytes, piece.n_bytes);
        sl_out_flush();
    }
    return SL_OK;
}

static sl_status add_token(sl_answer *answer, const sl_sampled *sampled, sl_err *err)
{
    if (answer->n_generated == answer->sampled_capacity) {
        size_t capacity = 2 * answer->sampled_capacity + 64;
        sl_sampled *grown = realloc(answer->sampled, capacity * sizeof(*grown));
        if (grown == NULL)
            SL_FAIL(err, SL_ERR_NOMEM, "out of memory for the answer");
        answer->sampled = grown;
        answer->sampled_capacity = capacity;
    }
    answer->sampled[answer->n_generated++] = *sampled;
    return SL_OK;
}

/* Text that an event brings. Where a text may end the answer, the engine says which bytes may be shown. */
static sl_status add_event_text(sl_generation *generation, const sl_event *event)
{
    sl_bytes piece;
    sl_detok *detok = &generation->detok;
    if (generation->options->stop.n > 0)
        SL_TRY(sl_detok_push_bytes(detok, (sl_bytes){event->bytes, event->n_bytes}, &piece, generation->err));
    else if (event->kind == SL_EVENT_TOKEN)
        SL_TRY(sl_detok_push(detok, event->sampled.token, &piece, generation->err));
    else
        return SL_OK;
    return add_text(generation, piece);
}

static void on_event(void *user, const sl_event *event)
{
    sl_generation *generation = user;
    sl_answer *answer = generation->answer;
    if (event->kind == SL_EVENT_TOKEN && generation->status == SL_OK)
        generation->status = add_token(answer, &event->sampled, generation->err);
    if (generation->status == SL_OK)
        generation->status = add_event_text(generation, event);
    if (event->kind == SL_EVENT_TOKEN)
        return;
    generation->ended = true;
    answer->finish = event->finish;
    answer->n_prompt = event->n_prompt;
    answer->n_cached = event->n_cached;
    answer->prefill_us = event->prefill_us;
    answer->decode_us = event->decode_us;
    if (event->finish == SL_FINISH_ERROR && generation->status == SL_OK)
        generation->status = sl_err_set(generation->err, event->error.code, "%s", event->error.message);
}

static sl_status check_fits(const sl_bundle *bundle, const sl_engine *engine, size_t n_prompt, sl_err *err)
{
    uint32_t context = sl_engine_context(engine), longest = sl_model_get_info(sl_bundle_model(bundle))->context_length;
    if (n_prompt < context)
        return SL_OK;
    if (context < longest)
        SL_FAIL(
            err, SL_ERR_LIMIT,
            "the prompt has %zu tokens and the context room for %u with the answer: shorten it, or raise --ctx (this "
            "model takes up to %u)",
            n_prompt, context, longest);
    SL_FAIL(err, SL_ERR_LIMIT,
            "the prompt has %zu tokens and the context room for %u with the answer: shorten it, or take a model with a "
            "longer context",
            n_prompt, context);
}

sl_status sl_generation_begin(const sl_bundle *bundle, sl_engine *engine, const sl_tokens *prompt,
                              const sl_generate_options *options, sl_answer *answer, sl_generation *generation,
                              sl_err *err)
{
    *answer = (sl_answer){0};
    if (prompt->n == 0)
        SL_FAIL(err, SL_ERR_LIMIT, "the prompt is empty: give some text");
    SL_TRY(check_fits(bundle, engine, prompt->n, err));
    *generation = (sl_generation){.options = options, .answer = answer, .err = err};
    sl_request request = {
        .prompt = prompt->ids,
        .n_prompt = prompt->n,
        .max_tokens = options->max_tokens,
        .sampling = options->sampling,
        .stop_strings = options->stop,
        .on_event = on_event,
        .user = generation,
    };
    request.n_stop_tokens = sl_bundle_stop_tokens(bundle, &request.stop_tokens);
    SL_TRY(sl_engine_submit(engine, &request, &generation->id, err));
    sl_detok_init(&generation->detok, sl_bundle_vocab(bundle), 0);
    if (options->raw)
        generation->detok.at_start = false;
    return SL_OK;
}

sl_status sl_generation_finish(sl_generation *generation)
{
    sl_bytes piece;
    sl_status status = generation->status;
    if (status == SL_OK)
        status = sl_detok_finish(&generation->detok, &piece, generation->err);
    if (status == SL_OK)
        status = add_text(generation, piece);
    sl_detok_free(&generation->detok);
    return status;
}

sl_status sl_generate(const sl_bundle *bundle, sl_engine *engine, const sl_tokens *prompt,
                      const sl_generate_options *options, sl_answer *answer, sl_err *err)
{
    sl_generation generation;
    sl_status status = SL_OK;
    SL_TRY(sl_generation_begin(bundle, engine, prompt, options, answer, &generation, err));
    for (bool busy = true; busy && status == SL_OK;) {
        if (sl_interrupts() > 0 || sl_out_failed() || generation.status != SL_OK)
            sl_engine_cancel(engine, generation.id);
        status = sl_engine_step(engine, sl_clock_us(), &busy, err);
    }
    if (status != SL_OK)
        generation.status = status;
    return sl_generation_finish(&generation);
}

void sl_answer_free(sl_answer *answer)
{
    free(answer->text);
    free(answer->sampled);
    *answer = (sl_answer){0};
}

double sl_answer_prefill_tps(const sl_answer *answer)
{
    uint32_t n = answer->n_prompt - answer->n_cached;
    return answer->prefill_us > 0 ? n * 1e6 / (double)answer->prefill_us : 0;
}

double sl_answer_decode_tps(const sl_answer *answer)
{
    return answer->n_generated > 1 && answer->decode_us > 0
               ? (answer->n_generated - 1) * 1e6 / (double)answer->decode_us
               : 0;
}
