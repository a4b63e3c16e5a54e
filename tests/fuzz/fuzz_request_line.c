/* libFuzzer target: any bytes as a line of `sluice run --input`. */
#include "cli/request_line.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n_bytes)
{
    sl_request_line defaults = {.sampling = sl_sample_params_default(), .max_tokens = 100}, request;
    sl_err err = {0};
    sl_status status = sl_request_line_read((const char *)data, n_bytes, &defaults, &request, &err);
    if (status != SL_OK && err.message[0] == '\0')
        abort();
    if (status == SL_OK && ((request.prompt.bytes != NULL) == (request.messages.n > 0) || request.max_tokens == 0))
        abort();
    sl_request_line_free(&request);
    return 0;
}
