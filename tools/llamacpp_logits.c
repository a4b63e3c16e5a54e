/* Teacher-forced logits from llama.cpp, to make and to check golden data; no part of the build.
 *   cc -O2 -I llama.cpp/include -I llama.cpp/ggml/include tools/llamacpp_logits.c -lllama -lggml -lggml-base -o llamacpp_logits
 *   llamacpp_logits MODEL.gguf < TOKENS > LOGITS
 * TOKENS: one sequence a line, ids separated by spaces. LOGITS: for each sequence float32 [n_tokens][n_vocab].
 * KV cache in F32, flash attention off, two threads: nothing is rounded but what llama.cpp's matmuls round. */
#include <llama.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_TOKENS = 2048 };

static void quiet(enum ggml_log_level level, const char *text, void *user)
{
    (void)user;
    if (level == GGML_LOG_LEVEL_ERROR)
        fputs(text, stderr);
}

static int run_line(struct llama_context *ctx, char *line, int n_vocab)
{
    struct llama_batch batch = llama_batch_init(MAX_TOKENS, 0, 1);
    for (char *word = strtok(line, " \n"); word && batch.n_tokens < MAX_TOKENS; word = strtok(NULL, " \n")) {
        int i = batch.n_tokens++;
        batch.token[i] = atoi(word);
        batch.pos[i] = i;
        batch.n_seq_id[i] = 1;
        batch.seq_id[i][0] = 0;
        batch.logits[i] = 1;
    }
    llama_memory_clear(llama_get_memory(ctx), true);
    int rc = batch.n_tokens > 0 ? llama_decode(ctx, batch) : 0;
    for (int i = 0; rc == 0 && i < batch.n_tokens; i++)
        fwrite(llama_get_logits_ith(ctx, i), sizeof(float), (size_t)n_vocab, stdout);
    llama_batch_free(batch);
    return rc;
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    llama_log_set(quiet, NULL);
    llama_backend_init();
    struct llama_model *model = llama_model_load_from_file(argv[1], llama_model_default_params());
    struct llama_context_params params = llama_context_default_params();
    params.n_ctx = params.n_batch = params.n_ubatch = MAX_TOKENS;
    params.n_threads = params.n_threads_batch = 2;
    params.type_k = params.type_v = GGML_TYPE_F32;
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_DISABLED;
    params.swa_full = true;
    struct llama_context *ctx = model ? llama_init_from_model(model, params) : NULL;
    if (!ctx)
        return 1;
    int n_vocab = llama_vocab_n_tokens(llama_model_get_vocab(model)), rc = 0;
    static char line[1 << 16];
    while (rc == 0 && fgets(line, sizeof(line), stdin))
        rc = run_line(ctx, line, n_vocab);
    llama_free(ctx);
    llama_model_free(model);
    return rc != 0;
}
