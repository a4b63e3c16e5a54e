#include "graph/row_ops.h"

#include <math.h>
#include <string.h>

bool sl_row_can_eval(sl_op op)
{
    switch (op) {
    case SL_OP_ROPE_FREQS:
    case SL_OP_DIV:
    case SL_OP_SCALE:
    case SL_OP_ADD:
    case SL_OP_RMSNORM:
    case SL_OP_QUANTIZE:
    case SL_OP_GLU:
    case SL_OP_ROPE:
        return true;
    default:
        return false;
    }
}

/* out[i] = base^(-2i / n_rot) * factor, n_rot = 2 * width (Su et al. 2021, section 3.2.2; factor: linear scaling). */
static void rope_freqs(const sl_node *node, float *out, uint32_t width)
{
    for (uint32_t i = 0; i < width; i++)
        out[i] = (float)(pow((double)node->base, -(double)i / (double)width) * (double)node->factor);
}

void sl_row_eval(const sl_kernels *kernels, const sl_graph *graph, const sl_node *node, const void *const *in,
                 void *out)
{
    uint32_t width = graph->values[node->output].width;
    const float *a = in[0], *b = in[1];
    float *y = out;
    switch (node->op) {
    case SL_OP_ROPE_FREQS:
        rope_freqs(node, y, width);
        break;
    case SL_OP_DIV:
        for (uint32_t i = 0; i < width; i++)
            y[i] = a[i] / b[i];
        break;
    case SL_OP_SCALE:
        kernels->scale(y, a, node->factor, width);
        break;
    case SL_OP_ADD:
        kernels->add(y, a, b, width);
        break;
    case SL_OP_RMSNORM:
        for (uint32_t h = 0, n = width / node->n_heads; h < node->n_heads; h++)
            kernels->rmsnorm(y + h * n, a + h * n, b, n, node->factor);
        break;
    case SL_OP_QUANTIZE:
        kernels->quantize_q8(out, a, width);
        break;
    case SL_OP_GLU:
        kernels->glu(y, a, b, width, node->gate);
        break;
    case SL_OP_ROPE:
        memcpy(y, a, width * sizeof *y);
        kernels->rope(y, node->n_heads, node->head_dim, b, graph->values[node->inputs[1]].width / 2, node->rope_mode);
        break;
    default:
        SL_ASSERT(!"an op that sl_row_can_eval allows");
    }
}
