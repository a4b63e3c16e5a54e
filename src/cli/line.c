#include "cli/line.h"

#include "base/utf8.h"
#include "cli/config.h"
#include "cli/interrupt.h"

#include <errno.h>
#include <fcntl.h>
#include <histedit.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { HISTORY_LINES = 1000 };

struct sl_line {
    EditLine *editor;
    History *history;
    const char *prompt;
    char *text; /* of the last line */
    const char *history_path;
    sl_arena arena;
};

static char *get_prompt(EditLine *editor)
{
    sl_line *line;
    el_get(editor, EL_CLIENTDATA, &line);
    return (char *)(uintptr_t)line->prompt; /* libedit does not write to it */
}

/* Reads a character for libedit: 1, or 0 at the end of input and on Ctrl-C. */
static int read_character(EditLine *editor, wchar_t *out)
{
    (void)editor;
    char bytes[4];
    size_t n = 0;
    for (;;) {
        if (!sl_interrupt_wait_readable(STDIN_FILENO))
            return 0;
        ssize_t got = read(STDIN_FILENO, bytes + n, 1);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return 0;
        uint32_t code_point = 0xfffd;
        if (sl_utf8_decode(bytes, ++n, &code_point) == -1)
            continue; /* a beginning: at most 3 bytes */
        *out = (wchar_t)code_point;
        return 1;
    }
}

/* Creates the folders of path that are missing, for the owner only. */
static void make_folders(const char *path)
{
    char folder[4096];
    if (snprintf(folder, sizeof(folder), "%s", path) >= (int)sizeof(folder))
        return;
    for (char *slash = strchr(folder + 1, '/'); slash != NULL; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        mkdir(folder, 0700);
        *slash = '/';
    }
}

/* Writes the history beside its file and renames it, so that a crash leaves the old one. */
static void save_history(sl_line *line)
{
    HistEvent event;
    char *path =
        line->history_path != NULL ? sl_arena_printf(&line->arena, "%s.%d", line->history_path, (int)getpid()) : NULL;
    if (path == NULL)
        return;
    make_folders(path);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    close(fd);
    if (history(line->history, &event, H_SAVE, path) < 0 || rename(path, line->history_path) != 0)
        unlink(path);
}

sl_status sl_line_open(const char *program, const char *prompt, sl_line **out, sl_err *err)
{
    HistEvent event;
    sl_line *line = calloc(1, sizeof(*line));
    if (line == NULL)
        SL_FAIL(err, SL_ERR_NOMEM, "out of memory");
    sl_arena_init(&line->arena, 0);
    line->prompt = prompt;
    line->history_path = sl_xdg_path(&line->arena, "XDG_STATE_HOME", ".local/state", "history");
    line->history = history_init();
    line->editor = line->history != NULL ? el_init(program, stdin, stdout, stderr) : NULL;
    if (line->editor == NULL) {
        sl_line_close(line);
        SL_FAIL(err, SL_ERR_IO, "cannot edit lines on this terminal: use -p TEXT or standard input");
    }
    history(line->history, &event, H_SETSIZE, HISTORY_LINES);
    history(line->history, &event, H_SETUNIQUE, 1);
    if (line->history_path != NULL)
        history(line->history, &event, H_LOAD, line->history_path);
    el_set(line->editor, EL_CLIENTDATA, line);
    el_set(line->editor, EL_PROMPT, get_prompt);
    el_set(line->editor, EL_EDITOR, "emacs");
    el_set(line->editor, EL_SIGNAL, 0);
    el_set(line->editor, EL_GETCFN, read_character);
    el_set(line->editor, EL_HIST, history, line->history);
    el_source(line->editor, NULL);
    *out = line;
    return SL_OK;
}

void sl_line_close(sl_line *line)
{
    if (line == NULL)
        return;
    if (line->editor != NULL) {
        save_history(line);
        el_end(line->editor);
    }
    if (line->history != NULL)
        history_end(line->history);
    free(line->text);
    sl_arena_reset(&line->arena);
    free(line);
}

const char *sl_line_read(sl_line *line)
{
    HistEvent event;
    int n = 0;
    el_resize(line->editor);
    /* el_gets shows the prompt first; a Ctrl-D that came before raw mode would then be read as a NUL. */
    el_set(line->editor, EL_PREP_TERM, 1);
    const char *text = el_gets(line->editor, &n);
    if (text == NULL || n <= 0 || sl_interrupts() > 0)
        return NULL;
    free(line->text);
    line->text = strdup(text);
    if (line->text == NULL)
        return NULL;
    line->text[strcspn(line->text, "\n")] = '\0';
    if (line->text[strspn(line->text, " \t")] != '\0')
        history(line->history, &event, H_ENTER, line->text);
    return line->text;
}
