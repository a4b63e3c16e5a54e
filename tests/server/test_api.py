"""What OpenAI's official client sees. Answers are compared with those of `sluice run`."""

import base64
import json
import struct
import subprocess
import threading
from pathlib import Path

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

    def test_choices(self):
        """Choice k is the same however many there are and however the server divides them."""
        other = running.Server(self, "--parallel", 7)
        fields = {"prompt": "Once upon a time there was", "max_tokens": 12, "seed": 9, "logprobs": 1}
        many = self.complete(n=6, **fields)
        texts = [choice.text for choice in many.choices]
        self.assertEqual(len(set(texts)), 6)
        self.assertEqual([choice.index for choice in many.choices], list(range(6)))
        self.assertEqual(texts[0], self.complete(**fields).choices[0].text)
        again = self.make_client(other).completions.create(model=other.name, n=6, **fields)
        self.assertEqual([(choice.text, choice.logprobs) for choice in again.choices],
                         [(choice.text, choice.logprobs) for choice in many.choices])
        self.assertEqual((many.usage.prompt_tokens, many.usage.completion_tokens),
                         (self.complete(**fields).usage.prompt_tokens, 72))
        chat = self.chat(n=5, max_tokens=6, seed=4, stream=True)
        ends = [chunk.choices[0].index for chunk in chat if chunk.choices[0].finish_reason]
        self.assertEqual(sorted(ends), list(range(5)))

    def test_echo(self):
        prompt = "Once upon a time"
        plain = self.complete(prompt=prompt, max_tokens=8, temperature=0, logprobs=2)
        echoed = self.complete(prompt=prompt, max_tokens=8, temperature=0, logprobs=2, echo=True)
        text, lists, own = echoed.choices[0].text, echoed.choices[0].logprobs, plain.choices[0].logprobs
        self.assertEqual(text, prompt + plain.choices[0].text)
        n = echoed.usage.prompt_tokens
        self.assertEqual(echoed.usage, plain.usage)
        self.assertEqual(len(lists.tokens), n + 8)
        self.assertEqual((lists.token_logprobs[0], lists.top_logprobs[0]), (None, None))
        self.assertEqual(lists.tokens[n:], own.tokens)
        self.assertEqual(lists.token_logprobs[n:], own.token_logprobs)
        self.assertEqual(lists.text_offset[n:], [len(prompt) + offset for offset in own.text_offset])
        for i in range(1, n + 8):
            self.assertLess(lists.token_logprobs[i], 0)
            self.assertIn(lists.token_logprobs[i], lists.top_logprobs[i].values())
            self.assertGreaterEqual(len(lists.top_logprobs[i]), 2)
        for token, offset in zip(lists.tokens[1:n], lists.text_offset[1:n]):
            self.assertEqual(text[offset:].lstrip()[:len(token.lstrip())], token.lstrip())
        # The scores alone; in a stream; with several choices.
        scored = self.complete(prompt=prompt, max_tokens=0, logprobs=2, echo=True)
        self.assertEqual((scored.choices[0].text, scored.choices[0].finish_reason), (prompt, "length"))
        self.assertEqual(scored.usage.completion_tokens, 0)
        self.assertEqual(scored.choices[0].logprobs.token_logprobs, lists.token_logprobs[:n])
        self.assertEqual(self.complete(prompt=prompt, max_tokens=0, echo=True).choices[0].text, prompt)
        chunks = [chunk.choices[0] for chunk in
                  self.complete(prompt=prompt, max_tokens=8, temperature=0, logprobs=2, echo=True, stream=True)]
        self.assertEqual("".join(chunk.text for chunk in chunks), text)
        self.assertEqual([value for chunk in chunks if chunk.logprobs for value in chunk.logprobs.token_logprobs],
                         lists.token_logprobs)
        for choice in self.complete(prompt=[prompt, prompt], n=3, max_tokens=2, logprobs=2, echo=True).choices:
            self.assertEqual(choice.logprobs.token_logprobs[:n], lists.token_logprobs[:n])

    def test_scores_are_those_of_generation(self):
        """What the model gave its own tokens is what it gives them as a prompt."""
        ids = [int(word) for word in self.output("tokenize", "-m", self.server.model, stdin=b"Once upon").split()]
        made = self.complete(prompt=ids, max_tokens=20, logprobs=0, seed=3,
                             extra_body={"ignore_eos": True, "allowed_token_ids": list(range(60, 120))})
        tokens, expected = made.choices[0].logprobs.tokens, made.choices[0].logprobs.token_logprobs
        by_text = {self.complete(prompt=[token], max_tokens=0, echo=True, logprobs=0).choices[0].logprobs.tokens[0]: token
                   for token in range(60, 120)}
        again = self.complete(prompt=ids + [by_text[token] for token in tokens], max_tokens=0, echo=True, logprobs=0)
        self.assertEqual(again.choices[0].logprobs.token_logprobs[len(ids):], expected)

    def test_long_echo(self):
        """Scores of a prompt that fills the context, in a stream that is read late."""
        answer = self.complete(prompt=[[70 + i % 40 for i in range(256)]], max_tokens=0, echo=True, logprobs=20)
        self.assertEqual(len(answer.choices[0].logprobs.tokens), 256)

    def test_bad_words(self):
        fields = {"prompt": "Once upon", "max_tokens": 30, "seed": 2, "logprobs": 0}
        tokens = self.complete(**fields, extra_body={"ignore_eos": True}).choices[0].logprobs.tokens
        word = next(token for token in tokens if token.strip().isalnum())
        free = self.complete(**fields, extra_body={"ignore_eos": True, "bad_words": [word]}).choices[0]
        self.assertNotIn(word, free.logprobs.tokens)
        self.assertEqual(free.logprobs.tokens[:tokens.index(word)], tokens[:tokens.index(word)])

    def test_every_byte(self):
        """What a client reads is the tokens' bytes as UTF-8, U+FFFD where they are none, whole or in pieces."""
        ids = list(range(3, 259))  # a token for each byte, in order:
        done = self.run_program("tokenize", "-m", self.server.model, "--ids", stdin=" ".join(map(str, ids)).encode())
        self.assertEqual(done.stdout, bytes(range(256)))
        for data in (bytes(range(1, 256)), b"\xf0\x9f\x91a\xe2\x82\xc3\xa9\xed\xa0\x80\xff", "né 日本".encode() + b"\xf0\x9f\x91"):
            body = {"prompt": [ids[byte] for byte in data], "max_tokens": 0, "echo": True}
            echoed = self.server.json("POST", "/v1/completions", body)[1]["choices"][0]["text"]
            self.assertEqual(echoed, data.decode(errors="replace"))
        for path, prompt in (("chat/completions", {"messages": MESSAGES}), ("completions", {"prompt": "x"})):
            for byte, token in enumerate(ids):
                status, answer = self.server.json("POST", "/v1/" + path, {**prompt, "max_tokens": 1, "ignore_eos": True,
                                                                          "allowed_token_ids": [token]})
                self.assertEqual(status, 200)
                self.assertEqual(self.text_of(answer["choices"][0]), bytes([byte]).decode(errors="replace"))
            for seed in range(6):
                body = {**prompt, "max_tokens": 120, "seed": seed, "temperature": 50, "ignore_eos": True,
                        "allowed_token_ids": ids if seed % 2 else ids[128:], "logprobs": True if "messages" in prompt else 0}
                choice = self.server.json("POST", "/v1/" + path, body)[1]["choices"][0]
                made = self.bytes_of(choice["logprobs"])
                self.assertEqual(len(made), 120)
                self.assertEqual(self.text_of(choice), made.decode(errors="replace"))
                self.assertIn("\ufffd", self.text_of(choice))
                chunks = [event["choices"][0] for event in
                          running.events(self.server.ask("POST", "/v1/" + path, {**body, "stream": True})[2])]
                self.assertEqual("".join(self.text_of(chunk) for chunk in chunks), self.text_of(choice))
                self.assertEqual(b"".join(self.bytes_of(chunk["logprobs"]) for chunk in chunks), made)

    @staticmethod
    def text_of(choice):
        """Of a whole answer or a chunk of one, of either kind."""
        return choice["text"] if "text" in choice else (choice.get("message") or choice["delta"]).get("content") or ""

    @staticmethod
    def bytes_of(logprobs):
        """Bytes of the tokens that a choice or chunk lists."""
        if not logprobs:
            return b""
        if "content" in logprobs:
            return b"".join(bytes(token["bytes"]) for token in logprobs["content"])
        return b"".join(bytes.fromhex(token[6:].replace("\\x", "")) if token.startswith("bytes:") else token.encode()
                        for token in logprobs["tokens"])

    def test_names_of_alternatives_are_unique(self):
        """Byte tokens and letters have the same text in this vocabulary, and a JSON object has each name once."""
        server = running.Server(self, model=self.server.model.parent / "tiny_gemma3.gguf")
        body = {"prompt": "the quick brown", "max_tokens": 200, "logprobs": 20, "seed": 1, "temperature": 5,
                "ignore_eos": True}
        status, _, text = server.ask("POST", "/v1/completions", body)
        self.assertEqual(status, 200)
        objects = []

        def collect(pairs):
            objects.append(pairs)
            return dict(pairs)
        lists = json.loads(text, object_pairs_hook=collect)["choices"][0]["logprobs"]
        for pairs in objects:
            self.assertEqual(len({name for name, _ in pairs}), len(pairs))
        fewer = 0
        for token, logprob, top in zip(lists["tokens"], lists["token_logprobs"], lists["top_logprobs"]):
            self.assertEqual(list(top.values()), sorted(top.values(), reverse=True))
            self.assertGreaterEqual(top[token], logprob)
            fewer += len(top) < 20
        self.assertGreater(fewer, 0)

    def test_memory_of_answers(self):
        """Answers that are not streamed share a limited memory; those that are, or fit, go on, and it is given back."""
        server = running.Server(self, "--parallel", 8, "--answer-memory", 1)
        large = {"prompt": "x", "n": 40, "max_tokens": 200, "ignore_eos": True, "logprobs": 20}
        for _ in range(2):
            status, headers, body = server.ask("POST", "/v1/completions", large)
            self.assertEqual((status, headers["retry-after"]), (503, "1"))
            self.assertIn("memory", json.loads(body)["error"]["message"])
            status, answer = server.json("POST", "/v1/completions", {**large, "n": 2})
            self.assertEqual((status, answer["usage"]["completion_tokens"]), (200, 400))
        status, _, body = server.ask("POST", "/v1/completions", {**large, "stream": True})
        tokens = sum(len(event["choices"][0]["logprobs"]["tokens"]) for event in running.events(body)
                     if event["choices"][0]["logprobs"])
        self.assertEqual((status, tokens), (200, 40 * 200))
        inputs = {"input": [[70 + i % 100] for i in range(2000)], "encoding_format": "float"}
        self.assertEqual(server.ask("POST", "/v1/embeddings", inputs)[0], 503)
        self.assertEqual(server.ask("POST", "/v1/embeddings", {**inputs, "input": inputs["input"][:200]})[0], 200)
        server.wait_for(running.is_idle)

    def test_nothing_left_to_choose(self):
        answer = self.complete(prompt="x", max_tokens=5, extra_body={"allowed_token_ids": [2]})
        self.assertEqual((answer.choices[0].finish_reason, answer.usage.completion_tokens), ("stop", 0))
        for fields in ({"allowed_token_ids": [2]}, {"allowed_token_ids": [70, 2, 71], "stop_token_ids": [71, 70]},
                       {"allowed_token_ids": [70], "stop_token_ids": [70], "ignore_eos": True}):
            body = self.assert_bad("min_tokens", lambda: self.complete(prompt="x", extra_body={"min_tokens": 1, **fields}))
            self.assertIn("'min_tokens'", body["message"])
            self.assertIn("'allowed_token_ids'", body["message"])
        for fields in ({"allowed_token_ids": [2], "ignore_eos": True}, {"allowed_token_ids": [2, 70]}):
            answer = self.complete(prompt="x", max_tokens=3, extra_body={"min_tokens": 2, **fields})
            self.assertGreaterEqual(answer.usage.completion_tokens, 2)
        word = self.complete(prompt="x", max_tokens=1, logprobs=0, extra_body={"allowed_token_ids": [90]})
        body = self.assert_bad("bad_words", lambda: self.complete(
            prompt="x", extra_body={"allowed_token_ids": [90], "bad_words": word.choices[0].logprobs.tokens}))
        self.assertIn("'allowed_token_ids'", body["message"])

    def test_text_threads(self):
        def n_threads(server):
            return len(list(Path(f"/proc/{server.process.pid}/task").iterdir()))
        one, five = running.Server(self, "--text-threads", 1), running.Server(self, "--text-threads", 5)
        self.assertEqual(n_threads(five), n_threads(one) + 4)
        self.assertGreaterEqual(n_threads(self.server), n_threads(one) + 1)
        client = self.make_client(five)
        texts = [f"Number {i} " * (1 + i % 9) for i in range(24)]
        alone = [self.complete(prompt=text, max_tokens=6, temperature=0).choices[0].text for text in texts]
        together = [None] * len(texts)

        def ask(i):
            chunks = client.completions.create(model=five.name, prompt=texts[i], max_tokens=6, temperature=0, stream=True)
            together[i] = "".join(chunk.choices[0].text for chunk in chunks)
        threads = [threading.Thread(target=ask, args=(i,)) for i in range(len(texts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(together, alone)

    def embed(self, **fields):
        return self.client.embeddings.create(model=self.server.name, **fields)

    def test_embeddings(self):
        texts = ["Hello there", "Once upon a time", "x"]
        ids = [[int(word) for word in self.output("tokenize", "-m", self.server.model, stdin=text.encode()).split()]
               for text in texts]
        answer = self.embed(input=texts, encoding_format="float")
        vectors = [item.embedding for item in answer.data]
        self.assertEqual([(item.index, item.object) for item in answer.data], [(i, "embedding") for i in range(3)])
        self.assertEqual((answer.usage.prompt_tokens, answer.usage.total_tokens), (sum(map(len, ids)),) * 2)
        for vector in vectors:
            self.assertAlmostEqual(sum(x * x for x in vector), 1, 5)
        self.assertEqual(len({tuple(vector) for vector in vectors}), 3)
        self.assertEqual([item.embedding for item in self.embed(input=ids, encoding_format="float").data], vectors)
        self.assertEqual(self.embed(input=texts[1], encoding_format="float").data[0].embedding, vectors[1])
        self.assertEqual(self.embed(input=ids[1], dimensions=len(vectors[0]), encoding_format="float")
                         .data[0].embedding, vectors[1])
        status, raw = self.server.json("POST", "/v1/embeddings", {"input": texts, "encoding_format": "base64"})
        self.assertEqual(status, 200)
        for item, vector in zip(raw["data"], vectors):
            floats = struct.unpack(f"<{len(vector)}f", base64.b64decode(item["embedding"], validate=True))
            self.assertEqual([struct.unpack("<f", struct.pack("<f", x))[0] for x in vector], list(floats))
        self.assertEqual(raw["model"], self.server.name)
        last = running.Server(self, "--pooling", "last")
        other = last.json("POST", "/v1/embeddings", {"input": texts[0]})[1]["data"][0]["embedding"]
        self.assertNotEqual(other, vectors[0])
        self.assert_bad("dimensions", lambda: self.embed(input="x", dimensions=5))
        self.assert_bad("input", lambda: self.embed(input=[]))
        self.assert_bad("input", lambda: self.embed(input=["x", 5]))
        self.assert_bad("input", lambda: self.embed(input=["x"] * 2049))
        self.assert_bad("input", lambda: self.embed(input=[1] * 257), code="context_length_exceeded")
        self.assertEqual(len(self.embed(input=[1] * 256).data), 1)
        self.assert_bad(None, lambda: self.embed(input=[[70], [5_000_000]]))

    def test_many_embeddings(self):
        """More inputs than requests may be there at once, beside an answer that goes on."""
        server = running.Server(self, "--parallel", 2, "--max-requests", 3)
        client = self.make_client(server)
        stream = client.completions.create(model=server.name, prompt="x", max_tokens=200, stream=True,
                                           extra_body={"ignore_eos": True})
        answer = client.embeddings.create(model=server.name, input=[[70 + i % 100, 5] for i in range(300)],
                                          encoding_format="float")
        self.assertEqual([item.index for item in answer.data], list(range(300)))
        self.assertEqual(answer.data[7].embedding, answer.data[107].embedding)
        self.assertNotEqual(answer.data[7].embedding, answer.data[8].embedding)
        self.assertEqual(answer.usage.prompt_tokens, 600)
        self.assertEqual([chunk.choices[0].finish_reason for chunk in stream][-1], "length")
        metrics = server.metrics()
        self.assertEqual(metrics["vllm:request_queue_time_seconds_count"], 301)
        self.assertEqual(metrics['vllm:request_success_total{finished_reason="stop"}'], 300)

    def test_priority(self):
        """Among those that wait the higher priority is first, whenever it came."""
        server = running.Server(self, "--parallel", 1)
        first, order = [], []

        def ask(priority):
            body = {"prompt": "x", "max_tokens": 500, "ignore_eos": True, "priority": priority,
                    "ttft_target_ms": 500, "itl_target_ms": 100.5}
            status, _ = server.json("POST", "/v1/completions", body)
            first.append(status)
            order.append(priority)
        with server.connect() as holder:
            holder.sendall(running.request("POST", "/v1/completions", {"prompt": "x", "n": 100, "max_tokens": 250,
                                                                       "ignore_eos": True, "priority": 10}))
            server.wait_for(running.is_busy)
            threads = []
            for i, priority in enumerate((-5, 0, 5)):
                threads.append(threading.Thread(target=ask, args=(priority,)))
                threads[-1].start()
                server.wait_for(lambda metrics, i=i: metrics["vllm:num_requests_waiting"] +
                                metrics["vllm:num_requests_running"] >= 101 - self.done(metrics) + i)
        for thread in threads:
            thread.join()
        self.assertEqual((first, order), ([200] * 3, [5, 0, -5]))

    @staticmethod
    def done(metrics):
        return sum(value for name, value in metrics.items() if name.startswith("vllm:request_success_total"))

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
                            "request_queue_time": 3, "request_prefill_time": 3, "request_decode_time": 3}.items():
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
        self.assert_bad("echo", lambda: self.chat(extra_body={"echo": True}))
        self.assert_bad("max_tokens", lambda: self.complete(prompt="x", max_tokens=0))
        self.assert_bad("bad_words", lambda: self.complete(prompt="x", extra_body={"bad_words": ["word " * 200]}))
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
        server = running.Server(self, "--parallel", 1, "--max-requests", 100)
        client = self.make_client(server)
        self.assert_bad("n", lambda: client.completions.create(model=server.name, prompt="x", n=101))  # never
        with server.connect() as holder:
            holder.sendall(running.request("POST", "/v1/completions", {"prompt": "x", "n": 100, "max_tokens": 250,
                                                                       "ignore_eos": True}))
            server.wait_for(running.is_busy)
            with self.assertRaises(openai.RateLimitError) as caught:
                client.completions.create(model=server.name, prompt="x", n=50)
            self.assertRegex(caught.exception.response.headers["retry-after"], "^[1-9][0-9]*$")
            # What can never be answered is no matter of when.
            self.assert_bad("prompt", lambda: client.completions.create(model=server.name, prompt=[1] * 256),
                            code="context_length_exceeded")
            self.assert_bad(None, lambda: client.completions.create(model=server.name, prompt=[5_000_000]))
        server.wait_for(running.is_idle)
        self.assertEqual(len(client.completions.create(model=server.name, prompt="x", n=100).choices), 100)

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
