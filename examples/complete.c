/* The least it takes: a model goes on with a text, which appears as it is made.
 *
 *   cc complete.c -o complete $(pkg-config --cflags --libs sluice)
 *   ./complete smollm2 "Once upon a time"
 *
 * The model is a GGUF file, or what `sluice pull` has stored under that name. */
#include <sluice/sluice.h>

#include <stdio.h>

int main(int argc, char **argv)
{
    sl_err err = {SL_OK, ""};
    sl_llm *llm = NULL;
    sl_runner *runner = NULL;
    sl_stream *stream = NULL;
    const sl_output *out;
    if (argc != 3) {
        fprintf(stderr, "usage: %s MODEL PROMPT\n", argv[0]);
        return 2;
    }
    sl_query query = sl_query_default();
    query.prompt = sl_bytes_of(argv[2]);
    query.max_tokens = 32;

    if (sl_llm_open(argv[1], NULL, &llm, &err) == SL_OK && sl_runner_open(llm, NULL, &runner, &err) == SL_OK &&
        sl_stream_open(runner, &query, &stream, &err) == SL_OK) {
        while ((out = sl_stream_next(stream, SL_FOREVER)) != NULL) {
            fwrite(out->text.bytes, 1, out->text.n_bytes, stdout);
            fflush(stdout);
            if (out->error)
                err = *out->error;
        }
        putchar('\n');
    }
    sl_stream_close(stream);
    sl_runner_close(runner);
    sl_llm_close(llm);
    if (err.code != SL_OK)
        fprintf(stderr, "%s: %s\n", argv[0], err.message);
    return err.code != SL_OK;
}
