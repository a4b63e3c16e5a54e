/* The printing part of `sluice bench techniques`. */
#include "cli/output.h"
#include "cli/techniques.h"

#include <stdlib.h>
#include <string.h>

typedef struct spread {
    double min, median, max;
} spread;

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static spread find_spread(const double *values, size_t n)
{
    double sorted[SL_TECHNIQUE_MAX_ROUNDS];
    memcpy(sorted, values, n * sizeof(*sorted));
    qsort(sorted, n, sizeof(*sorted), compare_doubles);
    return (spread){sorted[0], (sorted[(n - 1) / 2] + sorted[n / 2]) / 2, sorted[n - 1]};
}

/* On against off in each round; above 1 the technique is the faster one. */
static spread find_speedup(const sl_techniques *t, const sl_technique *row)
{
    double ratios[SL_TECHNIQUE_MAX_ROUNDS];
    for (size_t r = 0; r < t->n_rounds; r++) {
        double off = row->values[0][r], on = row->values[1][r];
        double better = row->lower_is_better ? off : on, worse = row->lower_is_better ? on : off;
        ratios[r] = worse > 0 ? better / worse : 0;
    }
    return find_spread(ratios, t->n_rounds);
}

static const char *const memory_names[] = {NULL, "KV", "step buffers", "weights"};

/* ---- JSON ---- */

static json_t *pack_side(const sl_techniques *t, const sl_technique *row, int i)
{
    json_t *values = json_array();
    for (size_t r = 0; r < t->n_rounds; r++)
        json_array_append_new(values, json_real(row->values[i][r]));
    const sl_side *side = &row->sides[i];
    json_t *memory = row->memory != SL_MEMORY_NONE ? json_integer((json_int_t)row->bytes[i]) : json_null();
    return json_pack("{s:o, s:o, s:f, s:o}", "label", sl_json_text(side->label, strlen(side->label)), "values", values,
                     "median", find_spread(row->values[i], t->n_rounds).median, "bytes", memory);
}

static json_t *pack_quality(const sl_quality *q)
{
    if (q->kind == SL_QUALITY_NONE)
        return json_null();
    if (q->kind == SL_QUALITY_TOKENS)
        return json_pack("{s:s, s:I, s:I}", "of", "generated tokens", "n", (json_int_t)q->n, "different",
                         (json_int_t)q->n_different);
    return json_pack("{s:s, s:I, s:I, s:f, s:f, s:f}", "of", "logits", "n", (json_int_t)q->n, "different",
                     (json_int_t)q->n_different, "kld_mean", q->kld_mean, "ppl_off", q->ppl[0], "ppl_on", q->ppl[1]);
}

static json_t *pack_row(const sl_techniques *t, const sl_technique *row)
{
    spread speedup = find_speedup(t, row);
    json_t *one = json_pack("{s:s, s:s, s:s, s:b, s:o, s:o, s:{s:f, s:f, s:f}, s:o}", "technique", row->name,
                            "measured", row->measured, "unit", row->unit, "lower_is_better", (int)row->lower_is_better,
                            "off", pack_side(t, row, 0), "on", pack_side(t, row, 1), "speedup", "min", speedup.min,
                            "median", speedup.median, "max", speedup.max, "quality", pack_quality(&row->quality));
    const char *memory = memory_names[row->memory];
    json_object_set_new(one, "memory", memory != NULL ? json_string(memory) : json_null());
    json_object_set_new(one, "memory_saved_bytes",
                        memory != NULL ? json_integer((json_int_t)row->bytes[0] - (json_int_t)row->bytes[1])
                                       : json_null());
    return one;
}

static sl_status print_json(const sl_techniques *t, const sl_bundle *bundle, sl_err *err)
{
    json_t *rows = json_array(), *models = json_array();
    for (size_t i = 0; i < t->n_rows; i++)
        json_array_append_new(rows, pack_row(t, &t->rows[i]));
    for (size_t i = 0; i < t->n_models; i++)
        json_array_append_new(models, sl_json_text(t->models[i], strlen(t->models[i])));
    return sl_out_json(json_pack("{s:o, s:o, s:i, s:I, s:I, s:f, s:o}", "models", models, "machine",
                                 sl_machine_json(&t->machine, bundle), "rounds", (int)t->n_rounds, "seed",
                                 (json_int_t)t->seed, "text_tokens", (json_int_t)t->n_text_tokens, "poisson_rate",
                                 t->static_rate / 2, "rows", rows),
                       err);
}

/* ---- Markdown ---- */

static void print_quality(const sl_quality *q)
{
    if (q->kind == SL_QUALITY_NONE)
        sl_out_text("- |\n");
    else if (q->kind == SL_QUALITY_TOKENS && q->n_different == 0)
        sl_out_printf("same %zu tokens |\n", q->n);
    else if (q->kind == SL_QUALITY_TOKENS)
        sl_out_printf("%zu of %zu tokens differ |\n", q->n_different, q->n);
    else if (q->n_different == 0)
        sl_out_printf("same bits at %zu positions |\n", q->n);
    else
        sl_out_printf("KLD %.5f, perplexity %.3f -> %.3f |\n", q->kld_mean, q->ppl[0], q->ppl[1]);
}

static void print_memory(const sl_technique *row)
{
    char off[32], on[32];
    if (row->memory == SL_MEMORY_NONE)
        sl_out_text(" - |");
    else
        sl_out_printf(" %s: %s -> %s |", memory_names[row->memory], sl_format_bytes(row->bytes[0], off),
                      sl_format_bytes(row->bytes[1], on));
}

static void print_row(const sl_techniques *t, const sl_technique *row)
{
    spread speedup = find_speedup(t, row);
    sl_out_printf("| %s | %s -> %s | %s, %s | %.1f | %.1f | **%.2f** (%.2f-%.2f) |", row->name, row->sides[0].label,
                  row->sides[1].label, row->measured, row->unit, find_spread(row->values[0], t->n_rounds).median,
                  find_spread(row->values[1], t->n_rounds).median, speedup.median, speedup.min, speedup.max);
    print_memory(row);
    sl_out_text(" ");
    print_quality(&row->quality);
}

sl_status sl_techniques_print(const sl_techniques *t, const sl_bundle *bundle, bool json, sl_err *err)
{
    if (json)
        return print_json(t, bundle, err);
    sl_out_printf("%s: ", t->models[0]);
    sl_machine_print(&t->machine, bundle);
    sl_out_printf(
        "\nMedians of %zu rounds, off and on by turns; seed %llu; quality by %zu tokens of a built-in text or by "
        "the generated tokens.\n\n",
        t->n_rounds, (unsigned long long)t->seed, t->n_text_tokens);
    sl_out_text("| technique | off -> on | measured | off | on | speed-up (least-most) | memory | quality |\n"
                "| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for (size_t i = 0; i < t->n_rows; i++)
        print_row(t, &t->rows[i]);
    return SL_OK;
}
