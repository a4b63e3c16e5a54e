"""The commands that need a model. Arguments: the program and a tiny model; without one, the pulled smollm2 is taken for the
cases that need a real one."""

import json
import math
import signal
import subprocess
import sys
import time

import harness

TEXTS = ["", "Hello, world!\n", "  two  spaces\tand a tab\r\n", "Grüße, 日本語, emoji 👩‍👩‍👧‍👦🇪🇺 and \u0301combining",
         "1234567890 3.14 0x1F", "<|im_start|>user\n<bos></s>", "int main(void)\n{\n    return 0;\n}\n", "a" * 5000,
         "\0\x01\x7f"]


class ModelCase(harness.Case):
    @property
    def model(self):
        return harness.FILES[0]


class Tokenize(ModelCase):
    def test_round_trip(self):
        for text in TEXTS:
            ids = self.output("tokenize", "-m", self.model, stdin=text.encode())
            self.assertRegex(ids, r"^(\d+( \d+)*)?\n$")
            self.assertEqual(self.output("tokenize", "-m", self.model, "--ids", stdin=ids.encode()), text)

    def test_bytes_that_are_no_text(self):
        """Any bytes are taken and come back; one for which a vocabulary has no token comes back as U+FFFD."""
        data = bytes(range(256)) + b"\xf0\x9f\x91" + "né\n".encode() + b"\xe2\x82"
        ids = self.output("tokenize", "-m", self.model, stdin=data)
        back = self.run_program("tokenize", "-m", self.model, "--ids", stdin=ids.encode()).stdout
        lost = set(data) - set(back)
        self.assertEqual(back, b"".join("\ufffd".encode() if byte in lost else bytes([byte]) for byte in data))
        if str(self.model).endswith(("tiny_llama.gguf", "tiny_gemma3.gguf")):
            self.assertEqual(lost, set())
        self.assertFalse(lost & set(range(32, 127)))
        text = self.output_json("tokenize", "-m", self.model, "--ids", stdin=ids.encode())["text"]
        self.assertEqual(text, back.decode(errors="replace"))

    def test_json(self):
        for text in TEXTS:
            whole = self.output_json("tokenize", "-m", self.model, stdin=text.encode())
            line = self.output("tokenize", "-m", self.model, stdin=text.encode())
            self.assertEqual(whole, {"tokens": [int(word) for word in line.split()], "count": len(line.split())})
            back = self.output_json("tokenize", "-m", self.model, "--ids", stdin=json.dumps(whole["tokens"]).encode())
            self.assertEqual(back, {"text": text})

    def test_no_special(self):
        plain = self.output("tokenize", "-m", self.model, "--no-special", stdin=b"Hello").split()
        special = self.output("tokenize", "-m", self.model, stdin=b"Hello").split()
        self.assertIn(plain, [special, special[1:], special[:-1], special[1:-1]])

    def test_bad_ids(self):
        for text in ["-1", "1.5", "x", "4294967296", "1 2 99999999"]:
            self.assert_error(1, ["token id"], "tokenize", "-m", self.model, "--ids", stdin=text.encode())


class Run(ModelCase):
    def answer(self, *arguments, prompt="Once upon a time", **extra):
        return self.output_json("run", "-m", self.model, "--raw", "-p", prompt, "-n", 12, *arguments, **extra)

    def greedy(self, *arguments, **extra):
        return self.answer("--temp", 0, *arguments, **extra)

    def test_fields(self):
        answer = self.greedy()
        self.assertEqual(set(answer), {"text", "prompt_tokens", "completion_tokens", "finish_reason", "tokens", "timings"})
        self.assertEqual(set(answer["timings"]), {"load_ms", "prefill_ms", "prefill_tps", "decode_ms", "decode_tps"})
        self.assertTrue(all(value >= 0 for value in answer["timings"].values()))
        self.assertIn(answer["finish_reason"], ("stop", "length"))
        self.assertEqual(len(answer["tokens"]), answer["completion_tokens"])
        if answer["finish_reason"] == "length":
            self.assertEqual(answer["completion_tokens"], 12)
        prompt = self.output("tokenize", "-m", self.model, stdin=b"Once upon a time").split()
        self.assertEqual(answer["prompt_tokens"], len(prompt))

    def test_text_is_that_of_the_tokens(self):
        answer = self.greedy()
        ids = " ".join(map(str, answer["tokens"]))
        whole = self.output_json("tokenize", "-m", self.model, "--ids", stdin=ids.encode())["text"]
        self.assertEqual(answer["text"].strip(), whole.strip())
        streamed = self.output("run", "-m", self.model, "--raw", "-p", "Once upon a time", "-n", 12, "--temp", 0)
        self.assertEqual(streamed, answer["text"] + "\n" if answer["text"] else "")

    def test_same_for_threads_and_chunks(self):
        expected = self.greedy("--logprobs", 5)
        for more in (["-t", 1], ["-t", 2], ["-t", 3], ["--chunk", 1], ["--chunk", 3], ["-t", 3, "--chunk", 2]):
            answer = self.greedy("--logprobs", 5, *more)
            self.assertEqual((answer["tokens"], answer["logprobs"]), (expected["tokens"], expected["logprobs"]), more)

    def test_logprobs(self):
        answer = self.greedy("--logprobs", 5)
        self.assertEqual([entry["id"] for entry in answer["logprobs"]], answer["tokens"])
        for entry in answer["logprobs"]:
            top = entry["top"]
            self.assertEqual(len(top), 5)
            self.assertEqual(top[0], {"id": entry["id"], "logprob": entry["logprob"]})
            self.assertEqual(sorted(top, key=lambda one: -one["logprob"]), top)
            self.assertLessEqual(sum(math.exp(one["logprob"]) for one in top), 1 + 1e-6)
        self.assertTrue(all(entry["top"] == [] for entry in self.greedy("--logprobs", 0)["logprobs"]))

    def test_seed(self):
        hot = ["--temp", 2, "--top-k", 0, "--top-p", 1, "--min-p", 0]
        first = self.answer(*hot, "--seed", 1)["tokens"]
        self.assertEqual(self.answer(*hot, "--seed", 1)["tokens"], first)
        self.assertEqual(self.answer(*hot, SLUICE_SEED="1")["tokens"], first)
        self.assertNotEqual(self.answer(*hot, "--seed", 2)["tokens"], first)
        self.assertNotEqual(self.answer(*hot)["tokens"], self.answer(*hot)["tokens"])

    def test_logit_bias(self):
        free = self.greedy()["tokens"]
        forced = [int(word) for word in self.output("tokenize", "-m", self.model, "--no-special", stdin=b"x").split()][-1]
        self.assertEqual(self.greedy("--logit-bias", f"{forced}:100")["tokens"], [forced] * 12)
        banned = self.greedy("--logit-bias", f"{free[0]}:-100", "--logit-bias", f"{forced}:-100")["tokens"]
        self.assertNotIn(free[0], banned)
        self.assert_error(2, ["99999999"], "run", "-m", self.model, "-p", "x", "--raw", "--logit-bias", "99999999:1")

    def test_where_the_prompt_comes_from(self):
        expected = self.greedy()
        arguments = ["run", "-m", self.model, "--raw", "-n", 12, "--temp", 0]
        (self.home / "prompt").write_text("Once upon a time")
        for more, stdin in ([], b"Once upon a time"), (["-f", "-"], b"Once upon a time"), (["-f", self.home / "prompt"], b""):
            self.assertEqual(self.output_json(*arguments, *more, stdin=stdin)["tokens"], expected["tokens"])

    def test_prompt_beyond_context(self):
        text = b"word " * 30
        n = len(self.output("tokenize", "-m", self.model, stdin=text).split())
        self.assert_error(1, [f"{n} tokens", "room for 25 ", "--ctx"], "run", "-m", self.model, "--raw", "-c", 25,
                          stdin=text)
        self.assert_error(1, [str(n)], "run", "-m", self.model, "--raw", "-c", n, stdin=text)
        answer = self.output_json("run", "-m", self.model, "--raw", "-c", n + 1, stdin=text)
        self.assertLessEqual(answer["completion_tokens"], 1)

    def test_context_ends_the_answer(self):
        forced = self.output("tokenize", "-m", self.model, "--no-special", stdin=b"x").split()[-1]
        answer = self.output_json("run", "-m", self.model, "--raw", "-p", "x", "-c", 20, "--logit-bias", f"{forced}:100")
        self.assertEqual(answer["finish_reason"], "length")
        self.assertEqual(answer["prompt_tokens"] + answer["completion_tokens"], 20)

    def test_context_beyond_model(self):
        self.assert_error(1, ["--ctx 16777216"], "run", "-m", self.model, "-p", "x", "-c", 16777216)

    def test_empty_prompt(self):
        self.assert_error(1, ["empty"], "run", "-m", self.model)
        self.assert_error(1, ["empty"], "run", "-m", self.model, stdin=b"\n")

    def test_full_disk(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([harness.PROGRAM, "run", "-m", self.model, "--raw", "-p", "x", "-n", "5"], stdout=full,
                                  stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, env=self.environment())
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"No space left", done.stderr)


class Info(ModelCase):
    def test_memory(self):
        one = self.output_json("info", self.model, "--length", 64)
        self.assertTrue(one["supported"])
        self.assertEqual(one["memory"]["length"], 64)
        four = self.output_json("info", self.model, "--length", 64, "--sequences", 4)["memory"]
        self.assertEqual(four["kv_bytes"], 4 * one["memory"]["kv_bytes"])
        f32 = self.output_json("info", self.model, "--kv-type", "f32")["model"]
        self.assertEqual(f32["kv_bytes_per_token"], 2 * one["model"]["kv_bytes_per_token"])
        kept = self.output_json("info", self.model, "--length", 250, "--kv-keep", "4+28")["memory"]
        for length, compare in ((250, self.assertLess), (16 + 32 + 128, self.assertEqual)):
            if one["model"]["window"] == 0 or length == 250:
                compare(kept["kv_bytes"], self.output_json("info", self.model, "--length", length)["memory"]["kv_bytes"])
        self.assertEqual(one["n_params"], sum(math.prod(t["shape"]) for t in one["tensors"]))

    def test_graph(self):
        self.assertIn("token_embd.weight", self.output("info", self.model, "--graph"))


class Eval(ModelCase):
    text = ("It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of "
            "foolishness, it was the epoch of belief, it was the epoch of incredulity. ") * 8

    def evaluate(self, *arguments):
        return self.output_json("eval", "ppl", "-m", self.model, "-f", "-", "--ctx", 32, *arguments,
                                stdin=self.text.encode())

    def test_fields(self):
        n = len(self.output("tokenize", "-m", self.model, stdin=self.text.encode()).split())
        result = self.evaluate()
        self.assertEqual(set(result), {"ppl", "stderr", "n_scored"})
        self.assertEqual(result["n_scored"], n // 32 * 15)
        self.assertGreater(result["ppl"], 1)
        self.assertGreater(result["stderr"], 0)
        self.assertEqual(self.evaluate("--limit-tokens", 70)["n_scored"], 30)
        self.assertEqual(self.evaluate("-t", 3)["ppl"], self.evaluate("-t", 1)["ppl"])

    def logprob(self, prompt, token):
        """Log-probability of the token after the prompt, by `run`: a bias forces the token, but is not in the figure."""
        answer = self.output_json("run", "-m", self.model, "--raw", "-p", prompt, "-n", 1, "--temp", 0, "--logprobs", 0,
                                  "--logit-bias", f"{token}:100")
        self.assertEqual(answer["tokens"], [token])
        return answer["logprobs"][0]["logprob"]

    def test_windows_and_formulas(self):
        """The same scores one by one: digits are tokens of their own, so that a prompt can end after any of them."""
        digits = "31415926535897932384626433832795"
        tokens = [int(word) for word in self.output("tokenize", "-m", self.model, stdin=digits.encode()).split()]
        n_bos = len(tokens) - len(digits)
        self.assertIn(n_bos, (0, 1))
        scores = []
        for start in (0, 16):
            for position in range(8, 15):
                prompt = digits[start:start + position + 1 - n_bos]  # BOS takes the first place of each window
                scores.append(-self.logprob(prompt, tokens[start + position + 1]))
        mean = sum(scores) / len(scores)
        variance = sum(score * score for score in scores) / len(scores) - mean * mean
        result = self.output_json("eval", "ppl", "-m", self.model, "-f", "-", "--ctx", 16, stdin=digits.encode())
        self.assertEqual(result["n_scored"], len(scores))
        self.assertAlmostEqual(result["ppl"] / math.exp(mean), 1, delta=1e-5)
        expected = math.sqrt(variance / (len(scores) - 1)) * math.exp(mean)
        self.assertAlmostEqual(result["stderr"] / expected, 1, delta=1e-4)

    def test_exact_against_itself(self):
        result = self.evaluate("--level", "exact", "--against", "exact")
        self.assertEqual((result["kld_mean"], result["kld_p99"], result["largest_flip_gap"]), (0, 0, 0))
        self.assertEqual(result["argmax_agreement"], 1)
        self.assertEqual(result["ppl"], result["ppl_base"])
        self.assertEqual((result["ppl_ratio"], result["ppl_ratio_stderr"]), (1, 0))

    def test_fast_against_exact(self):
        result = self.evaluate("--against", "exact")
        self.assertEqual(result["ppl_base"], self.evaluate("--level", "exact")["ppl"])
        self.assertLess(abs(result["ppl"] / result["ppl_base"] - 1), 0.05)
        self.assertAlmostEqual(result["ppl_ratio"], result["ppl"] / result["ppl_base"], delta=1e-7)
        self.assertTrue(0 < result["ppl_ratio_stderr"] < 0.01, result)
        self.assertTrue(0 <= result["kld_mean"] <= result["kld_p99"] < 0.5, result)

    def test_kept(self):
        """Blocks are given up at position 128, in the second half of a window of 230: that is seen, and nothing else."""
        full = self.evaluate("--ctx", 230)
        for keep in ("4+16", "4+16+16"):
            kept = self.evaluate("--ctx", 230, "--kv-keep", keep, "--against", "full")
            self.assertEqual((kept["ppl_base"], kept["n_scored"]), (full["ppl"], full["n_scored"]))
            self.assertGreater(kept["kld_mean"], 0.001)
            self.assertEqual(kept["ppl"], self.evaluate("--ctx", 230, "--kv-keep", keep, "-t", 2)["ppl"])
        enough = self.evaluate("--ctx", 230, "--kv-keep", "4+250", "--against", "full")
        self.assertEqual((enough["kld_mean"], enough["ppl"]), (0, full["ppl"]))

    def test_short_text(self):
        self.assert_error(1, ["--ctx"], "eval", "ppl", "-m", self.model, "-f", "-", stdin=b"short")


class Bench(ModelCase):
    def test_fields(self):
        result = self.output_json("bench", "-m", self.model, "-p", 20, "-n", 8, "-r", 2)
        self.assertEqual(set(result), {"prefill_tps", "decode_tps", "batch", "machine", "of_limit", "level", "threads"})
        for name in ("prefill_tps", "decode_tps"):
            self.assertEqual(set(result[name]), {"min", "median", "max"})
            self.assertTrue(0 < result[name]["min"] <= result[name]["median"] <= result[name]["max"])
        self.assertEqual(set(result["machine"]), {"dram_gbps", "int8_gops", "fp32_gflops"})
        self.assertEqual(set(result["of_limit"]), {"prefill", "decode"})
        self.assertTrue(all(value > 0 for part in ("machine", "of_limit") for value in result[part].values()))
        self.assertEqual(result["batch"], [])

    def test_batch(self):
        result = self.output_json("bench", "-m", self.model, "-p", 0, "-n", 0, "-b", "1,3", "--batch-prompt", 40,
                                  "--batch-decode", 5, "-r", 2, "--chunk", 16)
        self.assertEqual(result["of_limit"], {})
        self.assertNotIn("decode_tps", result)
        self.assertEqual([batch["sequences"] for batch in result["batch"]], [1, 3])
        self.assertTrue(all(batch["tps"]["min"] > 0 and batch["of_limit"] > 0 for batch in result["batch"]))

    def test_level(self):
        bench = ("bench", "-m", self.model, "-p", 4, "-n", 2, "-r", 1)
        self.assertEqual(self.output_json(*bench, "--level", "ref")["level"], "ref")
        self.assertEqual(self.output_json(*bench, SLUICE_CPU="ref")["level"], "ref")

    def test_profile(self):
        """Times of the steps add up to the measured time; weights and operations are those of the model."""
        result = self.output_json("bench", "-m", self.model, "-p", 64, "-n", 8, "-b", "4", "--batch-prompt", 16,
                                  "--batch-decode", 6, "-r", 1, "-t", 2, "--profile")["profile"]
        self.assertEqual({name: part["runs"] for name, part in result.items()}, {"prefill": 1, "decode": 8, "batch 4": 6})
        for part in result.values():
            inside = sum(line["work_us"] + line["wait_us"] for line in part["steps"])
            self.assertAlmostEqual(inside, sum(line["work_us"] + line["wait_us"] for line in part["ops"]), delta=1)
            self.assertAlmostEqual(inside + part["outside_us"], part["wall_us"], delta=0.05 * part["wall_us"])
            self.assertEqual(sum(line["steps"] for line in part["ops"]), len(part["steps"]))
            self.assertTrue(all(line["slowest_us"] >= line["work_us"] * 0.999 for line in part["steps"]))
        ops = {name: sum(line["ops"] for line in part["ops"] if line["label"].startswith("matmul"))
               for name, part in result.items()}
        tensors = {t["name"]: t["shape"] for t in self.output_json("info", self.model)["tensors"]}
        read_by_row = "token_embd.weight" if "output.weight" in tensors else None  # else it is the head as well
        n_matmul = sum(math.prod(shape) for name, shape in tensors.items() if len(shape) == 2 and name != read_by_row)
        self.assertEqual((ops["decode"], ops["batch 4"]), (2 * 8 * n_matmul, 2 * 24 * n_matmul))
        self.assertLess(ops["prefill"], 2 * 64 * n_matmul)  # only the last row needs the head

    def test_nothing_to_measure(self):
        self.assert_error(2, ["nothing to measure"], "bench", "-m", self.model, "-p", 0, "-n", 0)
        for value in ("", "0", "8,", "8,,9", "x", "1025", "99999999999999999999"):
            self.assert_error(2, ["--batch", f"'{value}'"], "bench", "-m", self.model, "-b", value)


class Interrupts(ModelCase):
    """An answer must take long enough to be interrupted."""

    def start(self, *arguments):
        process = subprocess.Popen([harness.PROGRAM, "run", "-m", self.model, "--temp", "0", "-p", "Tell a long story.",
                                    *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   stdin=subprocess.DEVNULL, env=self.environment())
        self.addCleanup(process.kill)
        return process

    def test_answer(self):
        process = self.start()
        self.assertTrue(process.stdout.read(10))
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=10)
        self.assertEqual((process.returncode, errors), (130, b""))

    def test_json(self):
        process = self.start("--json", "-c", "8192")
        time.sleep(2)
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=10)
        self.assertEqual((process.returncode, errors), (130, b""))
        self.assertEqual(json.loads(output)["finish_reason"], "cancelled")

    def test_closed_pipe(self):
        process = self.start()
        self.assertTrue(process.stdout.read(10))
        process.stdout.close()
        self.assertEqual(process.wait(timeout=10), 0)
        self.assertEqual(process.stderr.read(), b"")
        process.stderr.close()


# With the real model: what a tiny one can't show.
REAL = ["Interrupts", "Tokenize.test_round_trip", "Run.test_same_for_threads_and_chunks", "Run.test_logprobs",
        "Eval.test_fast_against_exact"]

if __name__ == "__main__":
    if len(sys.argv) > 2:
        del Interrupts
        harness.main()
    else:
        harness.use_pulled_model()
        harness.main(REAL)
