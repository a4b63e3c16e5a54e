/* Embeddings: how near each text is to the first, as the cosine of the angle between their mean hidden states.
 *
 *   cc embed.c -o embed $(pkg-config --cflags --libs sluice)
 *   ./embed smollm2 "a dog barks" "the hound howls" "interest rates rose"
 */
#include <sluice/sluice.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The embedding of a text, of length 1; n floats that the caller frees, or NULL. */
static float *embed(sl_runner *runner, const char *text, uint32_t n, sl_err *err)
{
    float *copy = NULL;
    sl_stream *stream = NULL;
    const sl_output *out;
    sl_query query = sl_query_default();
    query.prompt = sl_bytes_of(text);
    query.pooling = SL_POOLING_MEAN;
    if (sl_stream_open(runner, &query, &stream, err) != SL_OK)
        return NULL;
    while ((out = sl_stream_next(stream, SL_FOREVER)) != NULL) {
        if (out->kind == SL_OUTPUT_EMBEDDING && (copy = malloc(n * sizeof *copy)) != NULL)
            memcpy(copy, out->embedding, n * sizeof *copy);
        if (out->error)
            *err = *out->error;
    }
    sl_stream_close(stream);
    return copy;
}

static int compare(sl_runner *runner, uint32_t n, char **texts, int n_texts, sl_err *err)
{
    float *first = embed(runner, texts[0], n, err);
    for (int i = 0; i < n_texts && first; i++) {
        double cosine = 0;
        float *other = embed(runner, texts[i], n, err);
        for (uint32_t k = 0; k < n && other; k++)
            cosine += (double)first[k] * other[k];
        if (other)
            printf("%.4f %s\n", cosine, texts[i]);
        free(other);
    }
    free(first);
    return err->code != SL_OK;
}

int main(int argc, char **argv)
{
    sl_err err = {SL_OK, ""};
    sl_llm *llm = NULL;
    sl_runner *runner = NULL;
    sl_llm_info info;
    info.size = sizeof info;
    int failed = 1;
    if (argc < 3) {
        fprintf(stderr, "usage: %s MODEL TEXT...\n", argv[0]);
        return 2;
    }
    if (sl_llm_open(argv[1], NULL, &llm, &err) == SL_OK && sl_llm_get_info(llm, &info, &err) == SL_OK &&
        sl_runner_open(llm, NULL, &runner, &err) == SL_OK)
        failed = compare(runner, info.n_embedding, argv + 2, argc - 2, &err);
    sl_runner_close(runner);
    sl_llm_close(llm);
    if (failed)
        fprintf(stderr, "%s: %s\n", argv[0], err.message);
    return failed;
}
