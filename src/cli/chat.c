#include "cli/chat.h"

#include "cli/interrupt.h"
#include "cli/line.h"
#include "cli/output.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    const sl_bundle *bundle;
    sl_engine *engine;
    const sl_generate_options *options;
    bool timings;
    sl_message *messages; /* contents are ours; with a system prompt, it is the first */
    size_t n_messages, capacity;
} chat_state;

static const char chat_help[] =
    "/system TEXT  set the system prompt; without TEXT, show it\n"
    "/clear        forget the conversation, keep the system prompt\n"
    "/help         this list\n"
    "/exit         quit; so does Ctrl-D\n"
    "Ctrl-C stops an answer, and quits at the prompt. A space in front of / sends the text.\n";

void sl_print_timings(const sl_answer *answer)
{
    char cached[32] = "";
    if (answer->n_cached > 0)
        snprintf(cached, sizeof(cached), " (%u cached)", answer->n_cached);
    sl_print_note("prompt %u tokens%s, %.1f tok/s; answer %u tokens, %.1f tok/s", answer->n_prompt, cached,
                  sl_answer_prefill_tps(answer), answer->n_generated, sl_answer_decode_tps(answer));
}

static bool has_system(const chat_state *chat)
{
    return chat->n_messages > 0 && strcmp(chat->messages[0].role, "system") == 0;
}

/* Puts a copy of the text at place at, moving later messages up. */
static sl_status insert_message(chat_state *chat, size_t at, const char *role, const char *text, size_t n_bytes,
                                sl_err *err)
{
    if (chat->n_messages == chat->capacity) {
        size_t capacity = 2 * chat->capacity + 16;
        sl_message *grown = realloc(chat->messages, capacity * sizeof(*grown));
        if (grown == NULL)
            SL_FAIL(err, SL_ERR_NOMEM, "out of memory for the conversation");
        chat->messages = grown;
        chat->capacity = capacity;
    }
    char *copy = malloc(n_bytes + 1);
    if (copy == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory for the conversation");
    if (n_bytes > 0)
        memcpy(copy, text, n_bytes);
    copy[n_bytes] = '\0';
    memmove(chat->messages + at + 1, chat->messages + at, (chat->n_messages - at) * sizeof(*chat->messages));
    chat->messages[at] = (sl_message){.role = role, .content = {copy, n_bytes}};
    chat->n_messages++;
    return SL_OK;
}

/* Drops messages from the end until n are left. */
static void keep_messages(chat_state *chat, size_t n)
{
    while (chat->n_messages > n)
        free((void *)(uintptr_t)chat->messages[--chat->n_messages].content.bytes);
}

static sl_status set_system(chat_state *chat, const char *text, sl_err *err)
{
    if (has_system(chat)) {
        free((void *)(uintptr_t)chat->messages[0].content.bytes);
        memmove(chat->messages, chat->messages + 1, --chat->n_messages * sizeof(*chat->messages));
    }
    return insert_message(chat, 0, "system", text, strlen(text), err);
}

static void explain_finish(const chat_state *chat, const sl_answer *answer)
{
    uint32_t context = sl_engine_context(chat->engine);
    if (answer->finish == SL_FINISH_CANCELLED)
        sl_print_note("(stopped; Ctrl-C at the prompt quits)");
    else if (answer->finish == SL_FINISH_LENGTH && answer->n_prompt + answer->n_generated >= context)
        sl_print_note(
            "(the context of %u tokens is full: /clear begins a new conversation, 'sluice run --ctx %u' gives "
            "more room)",
            context, 2 * context);
    else if (answer->finish == SL_FINISH_LENGTH)
        sl_print_note("(cut after %u tokens as --n-predict says)", answer->n_generated);
}

/* Generates the answer to the conversation and adds it. */
static sl_status add_answer(chat_state *chat, sl_err *err)
{
    sl_tokens prompt = {0};
    sl_answer answer = {0};
    sl_status status = sl_bundle_chat_tokens(chat->bundle, chat->messages, chat->n_messages, &prompt, err);
    if (status == SL_OK && prompt.n >= sl_engine_context(chat->engine))
        status = sl_err_set(err, SL_ERR_LIMIT,
                            "the conversation has %zu tokens with this prompt, the context room for %u: shorten the "
                            "prompt (arrow up brings it back), or /clear begins a new conversation",
                            prompt.n, sl_engine_context(chat->engine));
    if (status == SL_OK)
        status = sl_generate(chat->bundle, chat->engine, &prompt, chat->options, &answer, err);
    if (answer.n_generated > 0)
        sl_out_text("\n");
    sl_out_flush();
    if (status == SL_OK) {
        explain_finish(chat, &answer);
        if (chat->timings)
            sl_print_timings(&answer);
        status = insert_message(chat, chat->n_messages, "assistant", answer.text, answer.n_bytes, err);
    }
    sl_answer_free(&answer);
    sl_tokens_free(&prompt);
    return status;
}

/* A prompt that got no answer leaves the conversation as it was. */
static sl_status talk(chat_state *chat, const char *text, sl_err *err)
{
    size_t n_before = chat->n_messages;
    SL_TRY(insert_message(chat, n_before, "user", text, strlen(text), err));
    sl_status status = add_answer(chat, err);
    if (status != SL_OK) {
        keep_messages(chat, n_before);
        sl_print_error(err->message);
    }
    return status == SL_ERR_INTERNAL || status == SL_ERR_NOMEM ? status : SL_OK;
}

/* Obeys a line that begins with '/'; false = quit. */
static bool obey(chat_state *chat, const char *line)
{
    sl_err err = {0};
    size_t n = strcspn(line, " \t");
    const char *rest = line + n + strspn(line + n, " \t");
    if (n == 5 && strncmp(line, "/exit", n) == 0)
        return false;
    if (n == 6 && strncmp(line, "/clear", n) == 0) {
        keep_messages(chat, has_system(chat) ? 1 : 0);
    } else if (n == 7 && strncmp(line, "/system", n) == 0) {
        if (rest[0] != '\0' && set_system(chat, rest, &err) != SL_OK)
            sl_print_error(err.message);
        else if (rest[0] == '\0')
            sl_print_note("%s", has_system(chat) ? chat->messages[0].content.bytes : "(no system prompt)");
    } else if (n == 5 && strncmp(line, "/help", n) == 0) {
        sl_out_text(chat_help);
    } else {
        sl_print_note("no command %.*s (/help lists them)", (int)SL_MIN(n, 40), line);
    }
    return true;
}

static sl_status talk_until_end(chat_state *chat, sl_line *line, sl_err *err)
{
    while (!sl_out_failed()) {
        sl_interrupt_reset();
        sl_out_flush();
        const char *text = sl_line_read(line);
        if (text == NULL)
            break;
        if (text[0] == '/') {
            if (!obey(chat, text))
                return SL_OK;
        } else if (text[strspn(text, " \t")] != '\0') {
            SL_TRY(talk(chat, text, err));
            if (sl_interrupts() > 1)
                break;
        }
    }
    sl_out_text("\n");
    return SL_OK;
}

/* Fails at once, not after the first prompt, when the model has no template. */
static sl_status check_template(const sl_bundle *bundle, sl_err *err)
{
    sl_tokens tokens = {0};
    sl_message hello = {.role = "user", .content = {"hello", 5}};
    sl_status status = sl_bundle_chat_tokens(bundle, &hello, 1, &tokens, err);
    sl_tokens_free(&tokens);
    return status;
}

sl_status sl_chat(const sl_bundle *bundle, sl_engine *engine, const char *system, bool timings,
                  const sl_generate_options *options, sl_err *err)
{
    chat_state chat = {.bundle = bundle, .engine = engine, .options = options, .timings = timings};
    sl_line *line = NULL;
    SL_TRY(check_template(bundle, err));
    sl_status status = sl_line_open("sluice", "> ", &line, err);
    if (status == SL_OK && system != NULL)
        status = set_system(&chat, system, err);
    if (status == SL_OK) {
        const sl_model_info *info = sl_model_get_info(sl_bundle_model(bundle));
        sl_print_note("%s, context of %u tokens; /help lists the commands, Ctrl-D quits",
                      info->name[0] != '\0' ? info->name : info->arch, sl_engine_context(engine));
        status = talk_until_end(&chat, line, err);
    }
    sl_line_close(line);
    keep_messages(&chat, 0);
    free(chat.messages);
    return status;
}
