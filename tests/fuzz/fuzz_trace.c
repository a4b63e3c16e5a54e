/* libFuzzer target: any bytes as a trace. What comes out must be in order and within the limits. */
#include "tune/trace.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

static void require(bool good)
{
    if (!good)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    sl_trace *trace;
    sl_err err = {0};
    if (sl_trace_read((const char *)data, n_bytes, "fuzz", 1, &trace, &err) != SL_OK) {
        require(err.message[0] != '\0' && trace == NULL);
        return 0;
    }
    require(trace->n_requests > 0 && trace->n_requests <= SL_TRACE_MAX_REQUESTS);
    for (size_t i = 0; i < trace->n_requests; i++) {
        const sl_trace_request *r = &trace->requests[i];
        require(r->n_prompt > 0 && r->n_output > 0 && r->n_prompt + r->n_output <= SL_TRACE_MAX_TOKENS);
        require(r->follows <= i && r->n_prefix <= r->n_prompt && r->tenant < trace->n_tenants);
        require(sl_trace_n_history(trace, i) < r->n_prompt);
        require(i == 0 || r->follows > 0 || trace->requests[i - 1].follows > 0 ||
                trace->requests[i - 1].arrival_us <= r->arrival_us);
        (void)sl_trace_token(trace, i, r->n_prompt - 1, 10);
    }
    require(sl_trace_bound(trace, 3) >= 0);
    sl_trace_close(trace);
    return 0;
}
