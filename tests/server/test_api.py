"""What OpenAI's official client sees. Answers are compared with those of `sluice run`."""

import json
import subprocess
import threading

import running
import harness

import openai_client

openai_client.add_to_path()
import openai  # noqa: E402

MESSAGES = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello there"}]


class Api(harness.Case):
    def setUp(self):
        super().setUp()
        self.server = running.Server(self, "--parallel", 4)
        self.client = self.make_client(self.server)

    def make_client(self, server, key="any"):
        client = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key=key, max_retries=0,
                               timeout=running.DEADLINE)
        self.addCleanup(client.close)
        return client

    def run_alone(self, *options):
        return self.output_json("run", "-m", self.server.model, *options)

    def chat(self, **fields):
        return self.client.chat.completions.create(model=self.server.name, **{"messages": MESSAGES, **fields})

    def complete(self, **fields):
        return self.client.completions.create(model=self.server.name, **fields)

    # ---- answers ----

    def test_models(self):
        self.assertEqual([model.id for model in self.client.models.list()], [self.server.name])
        self.assertEqual(self.client.models.retrieve(self.server.name).owned_by, "sluice")
        with self.assertRaises(openai.NotFoundError):
            self.client.models.retrieve("another")

    def test_chat_is_what_run_says(self):
        alone = self.run_alone("--system", "Be kind.", "-p", "Hello there", "-n", "20", "--temp", "0",
                               "--logprobs", "3")
        answer = self.chat(max_completion_tokens=20, temperature=0, logprobs=True, top_logprobs=3)
        choice = answer.choices[0]
        self.assertEqual((choice.message.role, choice.message.content), ("assistant", alone["text"]))
        self.assertEqual(choice.finish_reason, alone["finish_reason"])
        self.assertEqual((answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens),
                         (alone["prompt_tokens"], 20, alone["prompt_tokens"] + 20))
        self.assertEqual(len(choice.logprobs.content), 20)
        for mine, theirs in zip(choice.logprobs.content, alone["logprobs"]):
            self.assertAlmostEqual(mine.logprob, theirs["logprob"], 6)
            self.assertEqual(len(mine.top_logprobs), 3)
            for a, b in zip(mine.top_logprobs, theirs["top"]):
                self.assertAlmostEqual(a.logprob, b["logprob"], 6)
        joined = b"".join(bytes(token.bytes) for token in choice.logprobs.content)
        self.assertEqual(joined.decode(errors="replace"), alone["text"])

    def test_completion_is_what_run_says(self):
        alone = self.run_alone("--raw", "-p", "Once upon", "-n", "12", "--seed", "7", "--temp", "1", "--top-k", "0",
                               "--top-p", "1", "--min-p", "0")
        ids = [int(word) for word in self.output("tokenize", "-m", self.server.model, stdin=b"Once upon").split()]
        for prompt in ("Once upon", ["Once upon"], ids, [ids]):
            answer = self.complete(prompt=prompt, max_tokens=12, seed=7)
            self.assertEqual(answer.choices[0].text, alone["text"], prompt)
            self.assertEqual(answer.usage.prompt_tokens, len(ids))

    def test_defaults(self):
        answer = self.complete(prompt="x", extra_body={"ignore_eos": True})
        self.assertEqual((answer.usage.completion_tokens, answer.choices[0].finish_reason), (16, "length"))
        self.assertNotEqual(self.complete(prompt="x").choices[0].text, self.complete(prompt="x").choices[0].text)

    def test_full_context(self):
        answer = self.chat(temperature=0, extra_body={"ignore_eos": True})
        self.assertEqual((answer.usage.total_tokens, answer.choices[0].finish_reason), (256, "length"))

    def test_stream(self):
        whole = self.chat(max_tokens=30, temperature=0, logprobs=True, top_logprobs=2)
        chunks = list(self.chat(max_tokens=30, temperature=0, logprobs=True, top_logprobs=2, stream=True,
                                stream_options={"include_usage": True}))
        self.assertEqual(len({(chunk.id, chunk.created, chunk.model) for chunk in chunks}), 1)
        first, *middle, last, usage = chunks
        self.assertEqual((first.choices[0].delta.role, first.choices[0].delta.content), ("assistant", ""))
        self.assertEqual((last.choices[0].finish_reason, last.choices[0].delta.content), ("length", None))
        self.assertEqual((usage.choices, usage.usage.total_tokens), ([], whole.usage.total_tokens))
        self.assertEqual((usage.usage.prompt_tokens, usage.usage.completion_tokens), (whole.usage.prompt_tokens, 30))
        self.assertTrue(all(chunk.usage is None for chunk in chunks[:-1]))
        self.assertTrue(all(chunk.choices[0].finish_reason is None for chunk in middle))
        self.assertEqual("".join(chunk.choices[0].delta.content for chunk in middle), whole.choices[0].message.content)
        tokens = [token for chunk in middle for token in chunk.choices[0].logprobs.content]
        self.assertEqual(tokens, whole.choices[0].logprobs.content)

    def test_stream_of_a_completion(self):
        whole = self.complete(prompt=["One", "Two"], n=2, max_tokens=9, seed=5, logprobs=2)
        texts, tokens, offsets, ends = [""] * 4, [[] for _ in range(4)], [[] for _ in range(4)], [None] * 4
        for chunk in self.complete(prompt=["One", "Two"], n=2, max_tokens=9, seed=5, logprobs=2, stream=True):
            choice = chunk.choices[0]
            texts[choice.index] += choice.text
            ends[choice.index] = choice.finish_reason
            if choice.logprobs:
                tokens[choice.index] += choice.logprobs.tokens
                offsets[choice.index] += choice.logprobs.text_offset
        self.assertEqual(texts, [choice.text for choice in whole.choices])
        self.assertEqual(tokens, [choice.logprobs.tokens for choice in whole.choices])
        self.assertEqual(offsets, [choice.logprobs.text_offset for choice in whole.choices])
        self.assertEqual(ends, ["length"] * 4)
        self.assertEqual(len(set(texts)), 4, "each choice has random numbers of its own")
        self.assertEqual(whole.usage.completion_tokens, 36)

    def test_seed(self):
        first, again, other = (self.complete(prompt="x", seed=seed).choices[0].text for seed in (3, 3, 4))
        self.assertEqual(first, again)
        self.assertNotEqual(first, other)

    def test_completion_logprobs(self):
        lists = self.complete(prompt="One", max_tokens=10, temperature=0, logprobs=3).choices[0].logprobs
        self.assertEqual((len(lists.tokens), len(lists.token_logprobs)), (10, 10))
        self.assertEqual((len(lists.top_logprobs), len(lists.text_offset)), (10, 10))
        for token, logprob, top in zip(lists.tokens, lists.token_logprobs, lists.top_logprobs):
            self.assertEqual(top[token], logprob)
            self.assertEqual(max(top.values()), logprob)
        self.assertEqual(lists.text_offset[0], 0)

    def test_logit_bias(self):
        tokens = self.complete(prompt="x", max_tokens=4, logit_bias={"70": 100}, logprobs=0).choices[0].logprobs.tokens
        self.assertEqual(len(set(tokens)), 1)
        allowed = self.complete(prompt="x", max_tokens=8, extra_body={"allowed_token_ids": [70]}, logprobs=0)
        self.assertEqual(allowed.choices[0].logprobs.tokens, tokens * 2)

    def test_stop(self):
        whole = self.complete(prompt="x", seed=8, max_tokens=60, extra_body={"ignore_eos": True}).choices[0].text
        at = next(i for i in range(5, len(whole)) if whole[i:i + 2].isascii() and len(whole[i:i + 2]) == 2)
        stop = whole[at:at + 2]
        for stream in (False, True):
            answer = self.complete(prompt="x", seed=8, max_tokens=60, stop=["never this", stop], stream=stream,
                                   extra_body={"ignore_eos": True})
            choices = [chunk.choices[0] for chunk in answer] if stream else [answer.choices[0]]
            self.assertEqual("".join(choice.text for choice in choices), whole[:whole.index(stop)])
            self.assertEqual(choices[-1].finish_reason, "stop")

    def test_cached_prefix(self):
        text = "The same long beginning, again and again, of more than sixteen tokens."
        first, second = (self.complete(prompt=text, max_tokens=3, temperature=0) for _ in range(2))
        self.assertEqual(first.choices[0].text, second.choices[0].text)
        self.assertGreaterEqual(second.usage.prompt_tokens_details.cached_tokens, 16)

    def test_content_parts(self):
        parts = [{"role": "system", "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}]},
                 {"role": "user", "content": "Hello there", "name": "x"}]
        self.assertEqual(self.chat(messages=parts, temperature=0, max_tokens=9).choices,
                         self.chat(temperature=0, max_tokens=9).choices)

    def test_many_at_once(self):
        """More streams than sequences, each with the text that it has alone."""
        def answer(i):
            return "".join(chunk.choices[0].text for chunk in
                           self.complete(prompt=f"Number {i}", seed=i, max_tokens=40, stream=True))
        alone = [answer(i) for i in range(12)]
        together = [None] * 12
        threads = [threading.Thread(target=lambda i=i: together.__setitem__(i, answer(i))) for i in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(together, alone)
        self.assertEqual(len(set(alone)), 12)

    def test_cancel(self):
        stream = self.complete(prompt="x", n=64, max_tokens=200, stream=True, extra_body={"ignore_eos": True})
        next(iter(stream))
        stream.close()
        self.server.wait_for(running.is_idle)
        metrics = self.server.metrics()
        self.assertGreater(metrics['vllm:request_success_total{finished_reason="abort"}'], 0)
        self.assertLess(metrics["vllm:generation_tokens_total"], 64 * 200)
        self.assertEqual(len(self.complete(prompt="x", max_tokens=3).choices), 1)

    def test_metrics(self):
        for _ in range(3):
            self.complete(prompt=[70, 71, 72], max_tokens=5, extra_body={"ignore_eos": True})
        metrics = self.server.metrics()
        self.assertEqual(metrics["vllm:prompt_tokens_total"], 9)
        self.assertEqual(metrics["vllm:generation_tokens_total"], 15)
        self.assertEqual(metrics['vllm:request_success_total{finished_reason="length"}'], 3)
        for name, count in {"time_to_first_token": 3, "inter_token_latency": 12, "e2e_request_latency": 3,
                            "request_prefill_time": 3, "request_decode_time": 3}.items():
            self.assertEqual(metrics[f"vllm:{name}_seconds_count"], count)
            self.assertEqual(metrics[f'vllm:{name}_seconds_bucket{{le="+Inf"}}'], count)
            self.assertGreater(metrics[f"vllm:{name}_seconds_sum"], 0)
        for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc",
                     "prefix_cache_queries_total", "prefix_cache_hits_total", "num_preemptions_total"):
            self.assertIn(f"vllm:{name}", metrics)

    # ---- errors ----

    def assert_bad(self, param, call, error=openai.BadRequestError, code=None):
        with self.assertRaises(error) as caught:
            call()
        body = caught.exception.body
        self.assertEqual((body["param"], body["code"]), (param, code), body)
        self.assertTrue(body["message"] and body["type"])
        return body

    def test_errors(self):
        self.assert_bad("temperature", lambda: self.chat(temperature=-1))
        self.assert_bad("n", lambda: self.chat(n=1000))
        self.assert_bad("n", lambda: self.complete(prompt=["x"] * 100, n=2))
        self.assert_bad("prompt", lambda: self.complete(prompt=["x"] * 129))
        self.assert_bad("prompt", lambda: self.complete(prompt=[]))
        self.assert_bad("prompt", lambda: self.complete(prompt=["x", 5]))
        self.assert_bad("prompt", lambda: self.complete(prompt=[5, "x"]))
        self.assert_bad("tools", lambda: self.chat(tools=[{"type": "function", "function": {"name": "f"}}]))
        self.assert_bad("response_format", lambda: self.chat(response_format={"type": "json_object"}))
        self.assert_bad("messages", lambda: self.chat(messages=[]))
        self.assert_bad("messages", lambda: self.chat(messages=[{"role": "wizard", "content": "x"}]))
        tool = {"role": "tool", "content": "x", "tool_call_id": "1"}
        self.assert_bad("messages", lambda: self.chat(messages=[tool]))
        image = [{"type": "image_url", "image_url": {"url": "data:,"}}]
        self.assert_bad("messages", lambda: self.chat(messages=[{"role": "user", "content": image}]))
        self.assert_bad("top_logprobs", lambda: self.chat(top_logprobs=2))
        self.assert_bad("echo", lambda: self.complete(prompt="x", echo=True))
        self.assert_bad("messages", lambda: self.chat(messages=[{"role": "user", "content": "long " * 300}]),
                        code="context_length_exceeded")
        self.assert_bad("prompt", lambda: self.complete(prompt=[1] * 256), code="context_length_exceeded")
        self.assert_bad(None, lambda: self.complete(prompt=[5_000_000]))
        self.assert_bad(None, lambda: self.complete(prompt="x", logit_bias={"5000000": 1}))
        self.assert_bad(None, lambda: self.complete(prompt=["x", [5_000_000]][1:], stream=True))
        missing = lambda: self.client.chat.completions.create(model="another", messages=MESSAGES)
        self.assert_bad("model", missing, openai.NotFoundError, "model_not_found")
        self.assertEqual(self.complete(prompt="x", max_tokens=1).usage.completion_tokens, 1)

    def test_unknown_fields_are_named(self):
        answer = self.client.completions.with_raw_response.create(model=self.server.name, prompt="x", max_tokens=1,
                                                                  extra_body={"num_ctx": 5, "keep_alive": "x"})
        self.assertEqual(answer.headers["x-sluice-ignored-fields"], "num_ctx, keep_alive")

    def test_too_many(self):
        server = running.Server(self, "--parallel", 1, "--max-requests", 2)
        client = self.make_client(server)
        with self.assertRaises(openai.RateLimitError) as caught:
            client.completions.create(model=server.name, prompt="x", n=3)
        self.assertEqual(caught.exception.response.headers["retry-after"], "1")
        self.assertEqual(len(client.completions.create(model=server.name, prompt="x", n=2).choices), 2)

    def test_keys(self):
        keys = self.home / "keys"
        keys.write_text("# ours\nfirst\nsecond\n")
        server = running.Server(self, "--api-key-file", keys, "--alias", "nick")
        for key in ("first", "second"):
            client = self.make_client(server, key)
            self.assertEqual([model.id for model in client.models.list()], [server.name, "nick"])
            self.assertEqual(client.completions.create(model="nick", prompt="x", max_tokens=1).model, "nick")
        for key in ("third", "firs", "first2"):
            with self.assertRaises(openai.AuthenticationError):
                self.make_client(server, key).completions.create(model="nick", prompt="x")
        self.assertEqual(server.ask("GET", "/v1/models")[0], 401)
        self.assertEqual(server.ask("GET", "/health")[0], 200)
        # What one has asked does not make it faster for another.
        text = "A secret of more than sixteen tokens, which nobody else should be able to find."
        cached = [self.make_client(server, key).completions.create(model="nick", prompt=text, max_tokens=1)
                  .usage.prompt_tokens_details.cached_tokens for key in ("first", "second", "first")]
        self.assertEqual(cached[:2], [0, 0])
        self.assertGreaterEqual(cached[2], 16)


if __name__ == "__main__":
    harness.main()
