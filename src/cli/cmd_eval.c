/* `sluice eval ppl`: perplexity of a text, and what fast arithmetic or keys and values given up cost. */
#include "cli/commands.h"
#include "cli/input.h"
#include "cli/kv_args.h"
#include "cli/model_args.h"
#include "cli/output.h"
#include "cli/scorer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct {
    sl_bundle *bundle, *base_bundle;
    sl_scorer tested, base; /* base.bundle is NULL without --against */
    sl_tokens tokens;
    sl_position_score *scores;
    size_t n_scores, n_windows;
    uint32_t context;
} evaluation;

/* Opens a model at level (NULL: as --level says) with a context of one window, of which keep is kept. */
static sl_status open_scorer(const sl_args *args, const char *level, uint32_t context, sl_keep keep, sl_bundle **bundle,
                             sl_scorer *scorer, sl_err *err)
{
    SL_TRY(sl_model_args_open(args, level, bundle, err));
    return sl_scorer_open(scorer, *bundle, context, keep, err);
}

static sl_status score_text(evaluation *eval, sl_err *err)
{
    const sl_vocab *vocab = sl_bundle_vocab(eval->tested.bundle);
    eval->scores = calloc(eval->n_windows * eval->context, sizeof(*eval->scores));
    if (eval->scores == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory for scores");
    for (size_t w = 0; w < eval->n_windows; w++) {
        uint32_t *window = eval->tokens.ids + w * eval->context;
        if (sl_vocab_adds_bos(vocab) && sl_vocab_bos(vocab) >= 0)
            window[0] = (uint32_t)sl_vocab_bos(vocab);
        SL_TRY(sl_score_window(&eval->tested, eval->base.bundle != NULL ? &eval->base : NULL, window, eval->context,
                               eval->context / 2, eval->scores, &eval->n_scores, NULL, err));
        if (sl_is_terminal(STDERR_FILENO)) {
            sl_score_summary so_far;
            SL_TRY(sl_score_summarise(eval->scores, eval->n_scores, false, &so_far, err));
            fprintf(stderr, "\r\033[Kwindow %zu of %zu: perplexity %.4f", w + 1, eval->n_windows, so_far.ppl);
        }
    }
    if (sl_is_terminal(STDERR_FILENO))
        fputs("\r\033[K", stderr);
    return SL_OK;
}

/* Tokens of the text, cut to whole windows. */
static sl_status read_tokens(const sl_args *args, evaluation *eval, sl_err *err)
{
    sl_input text;
    SL_TRY(sl_input_read(sl_args_text(args, "file"), &text, err));
    sl_status status = sl_bundle_text_tokens(eval->tested.bundle, text.bytes, text.n_bytes, &eval->tokens, err);
    sl_input_free(&text);
    SL_TRY(status);
    size_t n = eval->tokens.n;
    if (sl_args_given(args, "limit-tokens"))
        n = SL_MIN(n, sl_args_uint(args, "limit-tokens"));
    eval->n_windows = n / eval->context;
    if (eval->n_windows == 0)
        SL_FAIL(err, SL_ERR_LIMIT, "the text has %zu tokens, one window %u: take a longer text or a smaller --ctx", n,
                eval->context);
    return SL_OK;
}

/* base: what was compared with; NULL: nothing. */
static sl_status print_summary(const sl_args *args, const sl_score_summary *s, const char *base, sl_err *err)
{
    if (sl_args_flag(args, "json")) {
        json_t *root =
            json_pack("{s:f, s:f, s:I}", "ppl", s->ppl, "stderr", s->stderr_, "n_scored", (json_int_t)s->n_scored);
        json_t *more = base != NULL ? json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "kld_mean", s->kld_mean,
                                                "kld_p99", s->kld_p99, "argmax_agreement", s->argmax_agreement,
                                                "largest_flip_gap", s->largest_flip_gap, "ppl_base", s->ppl_base,
                                                "ppl_ratio", s->ppl_ratio, "ppl_ratio_stderr", s->ppl_ratio_stderr)
                                    : NULL;
        if (more != NULL)
            json_object_update(root, more);
        json_decref(more);
        return sl_out_json(root, err);
    }
    sl_out_printf("perplexity        %.4f +/- %.4f over %zu tokens\n", s->ppl, s->stderr_, s->n_scored);
    if (base != NULL)
        sl_out_printf("of %-14s %.4f; change %+.3f %% +/- %.3f %%\n"
                      "KL divergence     %.6f on average, 99%% of tokens below %.6f\n"
                      "same likeliest    %.2f%%; largest gap between the first two of %s where not: %.4f\n",
                      base, s->ppl_base, 100 * (s->ppl_ratio - 1), 100 * s->ppl_ratio_stderr, s->kld_mean, s->kld_p99,
                      100 * s->argmax_agreement, base, s->largest_flip_gap);
    return SL_OK;
}

static sl_status evaluate(const sl_args *args, evaluation *eval, sl_err *err)
{
    sl_score_summary summary;
    sl_keep keep;
    const char *against = sl_args_text(args, "against");
    SL_TRY(sl_kv_args_keep(args, &keep, err));
    SL_TRY(open_scorer(args, NULL, eval->context, keep, &eval->bundle, &eval->tested, err));
    SL_TRY(read_tokens(args, eval, err));
    if (against != NULL)
        SL_TRY(open_scorer(args, strcmp(against, "full") == 0 ? NULL : against, eval->context, (sl_keep){0},
                           &eval->base_bundle, &eval->base, err));
    SL_TRY(score_text(eval, err));
    SL_TRY(sl_score_summarise(eval->scores, eval->n_scores, against != NULL, &summary, err));
    return print_summary(args, &summary, against, err);
}

static sl_status run(const sl_args *args, sl_err *err)
{
    if (strcmp(args->operands[0], "ppl") != 0)
        SL_FAIL(err, SL_ERR_ARGUMENT, "eval measures ppl, not '%.40s'", args->operands[0]);
    if (!sl_args_given(args, "file"))
        SL_FAIL(err, SL_ERR_ARGUMENT, "eval ppl needs a text: -f FILE");
    evaluation eval = {.context = (uint32_t)sl_args_uint(args, "ctx")};
    sl_status status = evaluate(args, &eval, err);
    sl_scorer_close(&eval.tested);
    sl_scorer_close(&eval.base);
    sl_bundle_close(eval.bundle);
    sl_bundle_close(eval.base_bundle);
    sl_tokens_free(&eval.tokens);
    free(eval.scores);
    return status;
}

static const char *const yardsticks[] = {"exact", "full", NULL};

static const sl_option options[] = {
    SL_OPT_MODEL,
    {.name = "file",
     .letter = 'f',
     .kind = SL_OPTION_TEXT,
     .argument = "FILE",
     .help = "text to score; - is standard input",
     .complete = SL_COMPLETE_FILE},
    {.name = "ctx",
     .letter = 'c',
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .min = 4,
     .max = 1 << 20,
     .fallback = "512",
     .help = "tokens of a window"},
    {.name = "limit-tokens",
     .kind = SL_OPTION_UINT,
     .argument = "N",
     .min = 1,
     .max = UINT32_MAX,
     .help = "only the first N tokens of the text"},
    {.name = "against",
     .kind = SL_OPTION_CHOICE,
     .argument = "WHAT",
     .choices = yardsticks,
     .help = "also compare with the same model in exact arithmetic (fp32, F32 keys and values), or with the full keys "
             "and values in the same arithmetic; either keeps everything, whatever --kv-keep says"},
    SL_OPTS_THREADS,
    SL_OPT_LEVEL,
    SL_OPTS_CACHE,
    SL_OPT_KV_TYPE,
    SL_OPT_KV_KEEP,
    SL_OPT_JSON,
};

const sl_command sl_cmd_eval = {
    .name = "eval",
    .summary = "measure how well a model predicts a text",
    .operands = "ppl",
    .description =
        "Perplexity, scored as llama-perplexity does so that figures compare: the text is cut into windows of --ctx "
        "tokens that do not overlap; in each, the first token becomes BOS where the model wants one, and the second "
        "half "
        "is scored.",
    .examples =
        "sluice eval ppl -m smollm2 -f book.txt\nsluice eval ppl -m smollm2 -f book.txt --against exact --json\n"
        "sluice eval ppl -m smollm2 -f book.txt --ctx 2048 --kv-keep 4+508 --against full",
    .options = options,
    .n_options = SL_COUNTOF(options),
    .min_operands = 1,
    .max_operands = 1,
    .run = run,
};
