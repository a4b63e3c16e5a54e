#include "cli/commands.h"
#include "cli/input.h"
#include "cli/model_args.h"
#include "cli/output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static json_t *ids_to_json(const sl_tokens *tokens)
{
    json_t *list = json_array();
    for (size_t i = 0; i < tokens->n; i++)
        json_array_append_new(list, json_integer(tokens->ids[i]));
    return list;
}

/* Text to ids, on one line. */
static sl_status encode(const sl_args *args, const sl_vocab *vocab, const sl_input *input, sl_err *err)
{
    sl_tokens tokens = {0};
    sl_span span = {.bytes = input->bytes, .n_bytes = input->n_bytes};
    uint32_t flags = sl_args_flag(args, "no-special") ? 0 : SL_TOKENIZE_ADD_SPECIAL;
    sl_status status = sl_tokenize(vocab, &span, 1, flags, &tokens, err);
    if (status == SL_OK && sl_args_flag(args, "json")) {
        status = sl_out_json(json_pack("{s:o, s:I}", "tokens", ids_to_json(&tokens), "count", (json_int_t)tokens.n), err);
    } else if (status == SL_OK) {
        for (size_t i = 0; i < tokens.n; i++)
            sl_out_printf("%s%u", i > 0 ? " " : "", tokens.ids[i]);
        sl_out_text("\n");
    }
    sl_tokens_free(&tokens);
    return status;
}

/* Reads whole numbers below n_vocab, separated by blanks, commas or brackets (so that a JSON array will do). */
static sl_status parse_ids(char *text, uint32_t n_vocab, sl_tokens *tokens, sl_err *err)
{
    char *rest = NULL;
    for (char *word = strtok_r(text, " \t\r\n,[]", &rest); word != NULL; word = strtok_r(NULL, " \t\r\n,[]", &rest)) {
        uint64_t id;
        if (!sl_parse_uint(word, 0, (uint64_t)n_vocab - 1, &id))
            SL_FAIL(err, SL_ERR_FORMAT, "'%.40s' is no token id: whole numbers below %u are", word, n_vocab);
        SL_TRY(sl_tokens_push(tokens, (uint32_t)id, err));
    }
    return SL_OK;
}

/* Ids to text: the exact bytes, with nothing added. */
static sl_status decode(const sl_args *args, const sl_vocab *vocab, sl_input *input, sl_err *err)
{
    sl_tokens tokens = {0};
    char *text = NULL;
    size_t n_bytes = 0;
    sl_status status = parse_ids(input->bytes, sl_vocab_n_tokens(vocab), &tokens, err);
    if (status == SL_OK)
        status = sl_detokenize(vocab, tokens.ids, tokens.n, 0, &text, &n_bytes, err);
    if (status == SL_OK && sl_args_flag(args, "json"))
        status = sl_out_json(json_pack("{s:o}", "text", sl_json_text(text, n_bytes)), err);
    else if (status == SL_OK)
        sl_out_foreign(text, n_bytes);
    free(text);
    sl_tokens_free(&tokens);
    return status;
}

static sl_status run(const sl_args *args, sl_err *err)
{
    sl_bundle *bundle = NULL;
    sl_input input;
    SL_TRY(sl_model_args_open_text(args, &bundle, err));
    sl_status status = sl_input_read("-", &input, err);
    if (status == SL_OK) {
        const sl_vocab *vocab = sl_bundle_vocab(bundle);
        status = sl_args_flag(args, "ids") ? decode(args, vocab, &input, err) : encode(args, vocab, &input, err);
        sl_input_free(&input);
    }
    sl_bundle_close(bundle);
    return status;
}

static const sl_option options[] = {
    SL_OPT_MODEL,
    {.name = "ids", .kind = SL_OPTION_FLAG, .help = "the other way: read token ids, print their text"},
    {.name = "no-special",
     .kind = SL_OPTION_FLAG,
     .help = "do not add the tokens that the model wants at the beginning or end"},
    SL_OPT_JSON,
};

const sl_command sl_cmd_tokenize = {
    .name = "tokenize",
    .summary = "turn text into token ids, or back",
    .operands = "",
    .description = "Reads standard input and prints the token ids of the text on one line. Text that looks like a control "
                   "token (<|im_start|>) is ordinary text. With --ids, control tokens have no text.",
    .examples = "echo 'Hello' | sluice tokenize -m smollm2\necho '19556 905' | sluice tokenize -m smollm2 --ids",
    .options = options,
    .n_options = SL_COUNTOF(options),
    .run = run,
};
