/* Many requests at once: all are submitted, one batch computes them, a callback collects what comes.
 *
 *   cc many.c -o many $(pkg-config --cflags --libs sluice)
 *   ./many smollm2 "The sky is" "Two and two are" "A river in France:"
 */
#include <sluice/sluice.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char text[1024];
    size_t n_text;
    sl_err err;
} answer;

/* On the runner's callback thread, never twice at once. */
static void on_output(void *user, const sl_output *out)
{
    answer *a = user;
    size_t room = sizeof a->text - a->n_text, n = out->text.n_bytes < room ? out->text.n_bytes : room;
    memcpy(a->text + a->n_text, out->text.bytes, n);
    a->n_text += n;
    if (out->error)
        a->err = *out->error;
}

static sl_status answer_all(sl_runner *runner, char **prompts, answer *answers, size_t n, sl_err *err)
{
    sl_status status = SL_OK;
    sl_query query = sl_query_default();
    query.max_tokens = 16;
    query.on_output = on_output;
    for (size_t i = 0; i < n && status == SL_OK; i++) {
        query.prompt = sl_bytes_of(prompts[i]);
        query.user = &answers[i];
        status = sl_runner_submit(runner, &query, NULL, err);
    }
    return status == SL_OK ? sl_runner_drain(runner, SL_FOREVER, err) : status;
}

int main(int argc, char **argv)
{
    sl_err err = {SL_OK, ""};
    sl_llm *llm = NULL;
    sl_runner *runner = NULL;
    size_t n = argc > 2 ? (size_t)argc - 2 : 0;
    answer *answers = calloc(n + 1, sizeof *answers);
    if (n == 0 || !answers) {
        fprintf(stderr, "usage: %s MODEL PROMPT...\n", argv[0]);
        return 2;
    }
    sl_status status = sl_llm_open(argv[1], NULL, &llm, &err);
    if (status == SL_OK)
        status = sl_runner_open(llm, NULL, &runner, &err);
    sl_llm_close(llm); /* the runner holds it */
    if (status == SL_OK)
        status = answer_all(runner, argv + 2, answers, n, &err);
    sl_runner_close(runner); /* no callback comes after this */
    for (size_t i = 0; i < n && status == SL_OK; i++) {
        printf("%s|%.*s\n", argv[2 + i], (int)answers[i].n_text, answers[i].text);
        if (answers[i].err.code != SL_OK)
            fprintf(stderr, "%s: %s\n", argv[2 + i], answers[i].err.message);
    }
    if (status != SL_OK)
        fprintf(stderr, "%s: %s\n", argv[0], err.message);
    free(answers);
    return status != SL_OK;
}
