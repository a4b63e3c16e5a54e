/* Writes the seeds of fuzz_request_line into a folder: seeds_request_line FOLDER */
#include "seeds.h"

static const char *const sources[] = {
    "{\"id\": \"a\", \"prompt\": \"Why?\", \"max_tokens\": 20, \"temperature\": 0.5, \"top_k\": 3, \"top_p\": 0.9}",
    "{\"id\": 7, \"messages\": [{\"role\": \"system\", \"content\": \"x\"}, {\"role\": \"user\", \"content\": "
    "\"\\u0000\"}]}",
    "{\"prompt\": \"x\", \"seed\": 5, \"logit_bias\": {\"15\": -100, \"7\": 1.5}, \"min_p\": 0.1, \"stop\": [\"a\", "
    "\"b\"]}",
    "{\"prompt\": \"x\", \"repetition_penalty\": 1.1, \"presence_penalty\": 1, \"frequency_penalty\": -1}",
};

int main(int argc, char **argv)
{
    return seeds_write(argc, argv, sources, sizeof sources / sizeof sources[0]);
}
