/* Writes the seeds of fuzz_trace into a folder: seeds_trace FOLDER */
#include "seeds.h"

static const char *const sources[] = {
    "{\"prompt_tokens\": 30, \"output_tokens\": 4}\n",
    "{\"arrival_ms\": 20.5, \"prompt_tokens\": 30, \"output_tokens\": 4, \"tenant\": \"x\", \"priority\": -3}\n\n"
    "{\"prompt\": [5, 6, 7], \"output_tokens\": 1, \"arrival_ms\": 1}\r\n",
    "{\"prompt_tokens\": 9, \"output_tokens\": 2, \"prefix_group\": \"g\", \"prefix_tokens\": 8}\n"
    "{\"prompt_tokens\": 9, \"output_tokens\": 2, \"prefix_group\": \"g\", \"prefix_tokens\": 8}\n",
    "{\"prompt\": [1], \"output_tokens\": 5, \"conversation\": \"c\", \"arrival_ms\": 100}\n"
    "{\"prompt_tokens\": 3, \"output_tokens\": 5, \"conversation\": \"d\", \"arrival_ms\": 50}\n"
    "{\"prompt_tokens\": 2, \"output_tokens\": 5, \"conversation\": \"c\", \"arrival_ms\": 7}\n",
};

int main(int argc, char **argv)
{
    return seeds_write(argc, argv, sources, sizeof sources / sizeof sources[0]);
}
