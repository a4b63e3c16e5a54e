"""`run --input`: a file of requests answered together. Arguments: the program and a tiny model."""

import json
import os
import re
import signal
import subprocess
import time

import harness

FIELDS = {"id", "line", "text", "prompt_tokens", "completion_tokens", "finish_reason"}


class Input(harness.Case):
    def arguments(self, *more):
        return ["run", "-m", harness.FILES[0], "-t", 1, "--raw", "--temp", 0, *more]

    def answers(self, requests, *more, code=0):
        """Output objects of requests (objects, or lines as they are)."""
        path = self.home / "requests.jsonl"
        path.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in requests))
        done = self.run_program(*self.arguments("--input", path, *more))
        self.assertEqual(done.returncode, code, done.stderr)
        if code == 0:
            self.assertEqual(done.stderr, b"")
        self.errors = done.stderr.decode()
        return [json.loads(line, parse_constant=self.fail) for line in done.stdout.decode().splitlines()]

    def test_same_as_alone(self):
        requests = [{"id": f"r{i}", "prompt": "Once upon a time" + " there was" * (i % 5), "max_tokens": 3 + 7 * i % 20}
                    for i in range(12)]
        answers = self.answers(requests, "--parallel", 5)
        self.assertEqual([answer["id"] for answer in answers], [request["id"] for request in requests])
        self.assertEqual([answer["line"] for answer in answers], list(range(1, 13)))
        for request, answer in zip(requests, answers):
            self.assertEqual(set(answer), FIELDS)
            alone = self.output_json(*self.arguments("-p", request["prompt"], "-n", request["max_tokens"]))
            for field in ("text", "prompt_tokens", "completion_tokens", "finish_reason"):
                self.assertEqual(answer[field], alone[field], (request, field))
        self.assertEqual(self.answers(requests, "--parallel", 1), answers)

    def test_sampling_of_a_line(self):
        hot = {"temperature": 2, "top_k": 0, "top_p": 1, "min_p": 0}
        requests = [{"prompt": "Once", "max_tokens": 12, "seed": seed, **hot} for seed in (1, 1, 2)]
        one, same, other = (answer["text"] for answer in self.answers(requests))
        self.assertEqual(one, same)
        self.assertNotEqual(one, other)
        alone = self.output_json(*self.arguments("-p", "Once", "-n", 12, "--temp", 2, "--top-k", 0, "--top-p", 1, "--min-p",
                                                 0, "--seed", 1))
        self.assertEqual(alone["text"], one)
        forced = self.output("tokenize", "-m", harness.FILES[0], "--no-special", stdin=b"x").split()[-1]
        answer, = self.answers([{"prompt": "Once", "max_tokens": 4, "logit_bias": {forced: 100}}])
        text = self.output("tokenize", "-m", harness.FILES[0], "--ids", stdin=" ".join([forced] * 4).encode())
        self.assertEqual(answer["text"].strip(), text.strip())

    def test_stop(self):
        request = {"prompt": "Once upon a time", "max_tokens": 30}
        whole, = self.answers([request])
        text = whole["text"]
        stop = re.search(r"[!-~]{2,3}", text[len(text) // 2:])[0]
        cut, same, none = self.answers([{**request, "stop": stop}, {**request, "stop": ["never this", stop]},
                                        {**request, "stop": ["never this"]}])
        self.assertEqual((cut["text"], cut["finish_reason"]), (text[:text.index(stop)], "stop"))
        self.assertEqual(same["text"], cut["text"])
        self.assertLess(cut["completion_tokens"], whole["completion_tokens"])
        self.assertEqual((none["text"], none["finish_reason"]), (text, whole["finish_reason"]))

    def test_options_fill_in(self):
        answers = self.answers([{"prompt": "Once"}, {"prompt": "Once", "max_tokens": 2}], "-n", 5)
        self.assertLessEqual(answers[0]["completion_tokens"], 5)
        self.assertLessEqual(answers[1]["completion_tokens"], 2)

    def test_bad_lines_disturb_no_other(self):
        bad = {
            "nonsense": ["no JSON"],
            "[1]": ["object"],
            '{"prompt": 5}': ["prompt", "text"],
            "{}": ["prompt", "messages"],
            '{"prompt": "x", "messages": []}': ["prompt", "messages"],
            '{"messages": []}': ["messages", "array"],
            '{"messages": [{"role": "user"}]}': ["messages[0]", "content"],
            '{"messages": [{"content": "x"}]}': ["messages[0]", "role"],
            '{"messages": [{"role": "wizard", "content": "x"}]}': ["messages[0]", "'role'", "developer"],
            '{"messages": [{"role": "user", "content": "x", "tool_calls": [1]}]}': ["messages[0]", "tool_calls"],
            '{"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}': ["messages[0]", "text"],
            '{"prompt": "x", "id": 1.5}': ["id"],
            '{"prompt": "x", "max_tokens": 0}': ["max_tokens", "from 1"],
            '{"prompt": "x", "max_tokens": 2.0}': ["max_tokens", "whole"],
            '{"prompt": "x", "temperature": "hot"}': ["temperature", "number"],
            '{"prompt": "x", "temperature": -1}': ["temperature"],
            '{"prompt": "x", "top_p": 1.5}': ["top_p"],
            '{"prompt": "x", "seed": 1.5}': ["seed"],
            '{"prompt": "x", "top_k": -2}': ["top_k", "from -1"],
            '{"prompt": null}': ["prompt", "messages"],
            '{"prompt": "x", "logit_bias": {"a": 1}}': ["logit_bias", "'a'"],
            '{"prompt": "x", "logit_bias": {"5": 101}}': ["logit_bias"],
            '{"prompt": "x", "logit_bias": [5]}': ["logit_bias"],
            '{"prompt": "x", "stop": 5}': ["stop"],
            '{"prompt": "x", "stop": ["a", ""]}': ["stop", "1 to 1024 bytes"],
            json.dumps({"prompt": "x", "stop": ["a"] * 17}): ["stop", "16"],
            '{"prompt": "x", "tools": []}': ["tools"],
            '{"prompt": "x", "prompt": "y"}': ["duplicate"],
            json.dumps({"prompt": "word " * 3000}): ["context"],
        }
        good = {"prompt": "Once", "max_tokens": 3}
        lines = [line for text in bad for line in (text, good)]
        answers = self.answers(lines, code=1)
        self.assertEqual([answer["line"] for answer in answers], list(range(1, len(lines) + 1)))
        for words, failed, answer in zip(bad.values(), answers[::2], answers[1::2]):
            self.assertEqual(set(failed), {"id", "line", "error"}, failed)
            self.assertEqual(set(failed["error"]), {"type", "message"})
            for word in words:
                self.assertIn(word, failed["error"]["message"])
            self.assertEqual(answer["text"], answers[1]["text"])
        self.assertRegex(self.errors, rf"^sluice: {len(bad)} of {len(lines)} requests failed, the first in line 1\n$")

    def test_same_meaning_as_for_the_server(self):
        """Null is absent, developer is system, content may come in parts, members that change nothing are left alone."""
        request = {"prompt": "Once upon a time", "max_tokens": 8}
        nulls = dict.fromkeys(["id", "messages", "temperature", "top_k", "top_p", "min_p", "repetition_penalty",
                               "presence_penalty", "frequency_penalty", "seed", "stop", "logit_bias", "tools"])
        plain, null, off, seeds = self.answers([request, {**nulls, **request}, {**request, "top_k": -1},
                                                {**request, "seed": -4}])
        self.assertEqual(plain["text"], null["text"])
        self.assertEqual(plain["text"], off["text"])
        self.assertEqual(plain["text"], seeds["text"])
        self.assertIsNone(null["id"])
        turns = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello there"}]
        parts = [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}]
        same = [{"role": "developer", "content": parts, "tool_calls": []}, {**turns[1], "name": "x", "audio": None}]
        first, second = self.answers([{"messages": turns, "max_tokens": 8}, {"messages": same, "max_tokens": 8}])
        self.assertEqual((first["text"], first["prompt_tokens"]), (second["text"], second["prompt_tokens"]))

    def test_long_file(self):
        """What is held does not grow with the number of lines: only the input does, and answers that are not their turn."""
        n = 150_000
        lines = [f'{{"id": "{i}", "prompt": 5}}\n' for i in range(n)]
        for i in range(0, n, 5000):
            lines[i] = f'{{"id": "{i}", "prompt": "Once", "max_tokens": 3}}\n'
        path = self.home / "requests.jsonl"
        path.write_text("".join(lines))
        out = self.home / "answers.jsonl"
        sanitizers = os.environ.get("ASAN_OPTIONS", "") + ":quarantine_size_mb=1"
        with open(out, "wb") as answers:
            process = subprocess.Popen([harness.PROGRAM, *map(str, self.arguments("--input", path))], stdout=answers,
                                       stderr=subprocess.PIPE, env=self.environment(ASAN_OPTIONS=sanitizers))
            with process.stderr:
                process.stderr.read()
            _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        self.assertEqual(process.returncode, 1)
        with open(out) as answers:
            for i, line in enumerate(answers):
                answer = json.loads(line)
                self.assertEqual((answer["id"], answer["line"], "text" in answer), (str(i), i + 1, i % 5000 == 0))
        self.assertEqual(i + 1, n)
        self.assertLess(usage.ru_maxrss, 150_000)  # KB; a line took more than 1.5 of them

    def test_id_of_a_bad_line(self):
        answers = self.answers([{"id": "mine", "prompt": "x", "wrong": 1}, {"id": 12345678901, "prompt": "x", "top_k": -2}],
                               code=1)
        self.assertEqual([answer["id"] for answer in answers], ["mine", 12345678901])

    def test_blank_lines_and_no_last_line_end(self):
        text = b'\n  \r\n{"prompt": "Once", "max_tokens": 2}\r\n\n{"prompt": "Once", "max_tokens": 2}'
        lines = self.output(*self.arguments("--input", "-"), stdin=text).splitlines()
        self.assertEqual([json.loads(line)["line"] for line in lines], [3, 5])

    def test_nul_in_a_prompt(self):
        self.assertEqual(len(self.answers([{"prompt": "a\0b", "max_tokens": 2}])), 1)

    def test_bad_usage(self):
        for more in (["-p", "x"], ["-f", "x"], ["--json"], ["--logprobs", 2], ["--timings"]):
            self.assert_error(2, ["--input", more[0] if more[0].startswith("--") else "--"],
                              *self.arguments("--input", "x", *more))
        self.assert_error(1, ["missing"], *self.arguments("--input", self.home / "missing"))
        self.assert_error(1, ["no requests"], *self.arguments("--input", "-"))
        self.assert_error(2, ["--parallel", "'0'"], *self.arguments("--input", "-", "--parallel", 0))

    def test_interrupt(self):
        path = self.home / "requests.jsonl"
        path.write_text('{"prompt": "Once", "max_tokens": 1}\n' + '{"prompt": "Once", "max_tokens": 200}\n' * 20000)
        process = subprocess.Popen([harness.PROGRAM, *map(str, self.arguments("--input", path))], stdout=subprocess.PIPE,
                                   stderr=subprocess.PIPE, env=self.environment())
        self.addCleanup(process.kill)
        first = process.stdout.readline()
        self.assertEqual(json.loads(first)["line"], 1)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
        self.assertEqual((process.returncode, errors), (130, b""))
        lines = [json.loads(line)["line"] for line in rest.splitlines()]
        self.assertEqual(lines, list(range(2, 2 + len(lines))))


if __name__ == "__main__":
    harness.main()
