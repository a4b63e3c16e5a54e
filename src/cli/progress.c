#include "cli/progress.h"

#include "base/clock.h"
#include "cli/interrupt.h"
#include "cli/output.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { BAR_CELLS = 30, DELAY_US = 1000000, REDRAW_US = 100000 };

void sl_progress_start(sl_progress *progress, const char *label)
{
    const char *term = getenv("TERM");
    *progress = (sl_progress){.label = label, .start_us = sl_clock_us()};
    progress->on_terminal = sl_is_terminal(STDERR_FILENO) && term != NULL;
}

static void draw(sl_progress *progress, uint64_t done, uint64_t total)
{
    char done_text[32], total_text[32], bar[BAR_CELLS + 1];
    double part = total > 0 ? (double)done / (double)total : 0;
    int full = (int)(SL_MIN(part, 1.0) * BAR_CELLS);
    for (int i = 0; i < BAR_CELLS; i++)
        bar[i] = i < full ? '#' : '.';
    bar[BAR_CELLS] = '\0';
    sl_format_bytes(done, done_text);
    if (total > 0)
        fprintf(stderr, "\r\033[K%s [%s] %3.0f%% of %s", progress->label, bar, SL_MIN(part, 1.0) * 100,
                sl_format_bytes(total, total_text));
    else
        fprintf(stderr, "\r\033[K%s %s", progress->label, done_text);
    fflush(stderr);
}

bool sl_progress_update(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
    sl_progress *progress = user;
    int64_t now_us = sl_clock_us();
    if (progress->on_terminal && now_us - progress->start_us > DELAY_US && now_us - progress->drawn_us > REDRAW_US) {
        draw(progress, done_bytes, total_bytes);
        progress->drawn_us = now_us;
        progress->visible = true;
    }
    return sl_interrupts() == 0;
}

void sl_progress_finish(sl_progress *progress)
{
    if (progress->visible)
        fputs("\r\033[K", stderr);
    progress->visible = false;
}
