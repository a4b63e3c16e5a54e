// The header as C++ sees it: it must compile without a warning, and its inline functions must link.
#include <sluice/sluice.h>

size_t default_sizes();

size_t default_sizes()
{
    sl_query query = sl_query_default();
    query.prompt = sl_bytes_of("text");
    return query.size + query.prompt.n_bytes + sl_runner_options_default().size + sl_llm_options_default().size;
}
