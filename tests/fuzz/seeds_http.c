/* Writes the seeds of fuzz_http into a folder: seeds_http FOLDER */
#include "seeds.h"

static const char *const seeds[] = {
    "GET /health HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    "POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n{\"prompt\":\"x\"}",
    "POST /v1/completions HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    "e;x=y\r\n{\"prompt\":\"x\"}\r\n0\r\nT: u\r\n\r\n",
    "POST / HTTP/1.0\r\nExpect: 100-continue\r\nAuthorization: Bearer k\r\nContent-Encoding: identity\r\n\r\n",
    "4\r\nWiki\r\n5\r\npedia\r\n0\r\n\r\n",
    "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"\\u0000\\ud83d\\ude00\"}]}],"
    "\"stream\":true,\"stream_options\":{\"include_usage\":true},\"max_completion_tokens\":5,\"n\":2,\"temperature\":0."
    "5,"
    "\"top_p\":1,\"top_k\":-1,\"min_p\":0.1,\"logprobs\":true,\"top_logprobs\":3,\"seed\":1,\"logit_bias\":{\"5\":-100}"
    ","
    "\"stop\":[\"a\",\"b\"],\"tools\":[],\"response_format\":{\"type\":\"text\"}}",
    "{\"prompt\":[[1,2],[3]],\"max_tokens\":9,\"presence_penalty\":-2,\"frequency_penalty\":2,\"repetition_penalty\":1."
    "1,"
    "\"stop_token_ids\":[1],\"allowed_token_ids\":[2],\"min_tokens\":1,\"ignore_eos\":true,\"logprobs\":5,\"echo\":"
    "false}",
};

int main(int argc, char **argv)
{
    return seeds_write(argc, argv, seeds, sizeof seeds / sizeof seeds[0]);
}
