#include "graph/matmul_step.h"

#include "base/threads.h"

enum { AHEAD_BYTES = 256 << 10 /* a part of the second level cache */, LINE_BYTES = 64 };

static size_t count_panels(const sl_graph *graph, const sl_step *step)
{
    size_t n = 0;
    for (int i = step->begin; i < step->end; i++)
        n += graph->weights[graph->nodes[i].weight].weight.n_panels;
    return n;
}

/* Number of pieces of at least `least` things that n of them are cut into, aiming at `wanted`; 1 when n is less. */
static size_t count_pieces(size_t n, size_t least, size_t wanted)
{
    return SL_MAX(SL_MIN(n / least, wanted), 1);
}

/* Many rows are cut by rows, since a piece begins with work on each of its rows and then on each of its panels; few rows
 * by panels. */
bool sl_matmul_cut(const sl_graph *graph, const sl_step *step, size_t n_rows, int n_workers, size_t i,
                   sl_matmul_piece *piece)
{
    enum { LEAST_ROWS = 120, LEAST_PAIRS = 2 };
    size_t n_threads = (size_t)n_workers, n_panels = count_panels(graph, step);
    size_t n_pairs = (n_panels + 1) / 2; /* kernels take pairs */
    size_t wanted = n_threads == 1                                             ? 1
                    : n_rows < SL_MATMUL_MANY_ROWS || n_rows >= 2 * LEAST_ROWS ? 4 * n_threads
                                                                               : 2 * n_threads;
    size_t by_row = count_pieces(n_rows, LEAST_ROWS, wanted);
    size_t by_panel = by_row >= 2 * n_threads ? 1 : count_pieces(n_pairs, LEAST_PAIRS, wanted / by_row);
    size_t r = i % by_row, p = i / by_row, pair, pair_end;
    if (p >= by_panel)
        return false;
    /* Larger pieces before smaller ones: the last ones decide how long a worker waits for the others. */
    sl_threads_share(n_rows, (int)r, (int)by_row, &piece->row, &piece->row_end);
    sl_threads_share(n_pairs, (int)p, (int)by_panel, &pair, &pair_end);
    piece->panel = 2 * pair;
    piece->panel_end = SL_MIN(2 * pair_end, n_panels);
    return true;
}

sl_read_ahead sl_read_ahead_of(const sl_plan *plan, const sl_step *step, const sl_matmul_piece *piece)
{
    const sl_graph *graph = &plan->graph;
    size_t first = 0;
    for (int i = step->begin; i < step->end; i++) {
        const sl_weight *weight = &graph->weights[graph->nodes[i].weight].weight;
        if (piece->panel < first + weight->n_panels && piece->row < piece->row_end) {
            size_t from = piece->panel - first, to = SL_MIN(piece->panel_end - first, weight->n_panels);
            size_t n_streams = sl_matmul_streams(&plan->kernels->reading, piece->row_end - piece->row);
            const char *at = (const char *)weight->data + from * weight->panel_bytes;
            size_t apart = (to - from) / n_streams * weight->panel_bytes;
            return (sl_read_ahead){.at = at,
                                   .end = at + SL_MIN(apart, AHEAD_BYTES / n_streams),
                                   .apart = apart,
                                   .n_streams = (int)n_streams};
        }
        first += weight->n_panels;
    }
    return (sl_read_ahead){0};
}

bool sl_read_ahead_some(void *user)
{
    sl_read_ahead *ahead = user;
    if (ahead->at >= ahead->end)
        return false;
    for (int s = 0; s < ahead->n_streams; s++)
        __builtin_prefetch(ahead->at + (size_t)s * ahead->apart, 0, 2);
    ahead->at += LINE_BYTES;
    return true;
}
