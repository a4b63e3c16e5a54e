"""`bench throughput`: options, errors, and what its report holds. Arguments: the program and a tiny model."""

import harness

PERCENTILES = {"n", "mean", "p50", "p90", "p99", "max"}
LATENCIES = {"ttft_ms", "itl_ms", "tpot_ms", "e2e_ms"}
TRACES = ["fixed", "uniform", "lognormal", "poisson", "bursty", "shared-prefix", "long-prefix", "chat", "two-tenants",
          "equal-tenants"]


class Throughput(harness.Case):
    def report(self, *arguments, **extra):
        return self.output_json("bench", "throughput", "-m", harness.FILES[0], "-t", 1, *arguments, **extra)

    def assert_bad(self, code, words, *arguments, **extra):
        self.assert_error(code, words, "bench", "throughput", "-m", harness.FILES[0], *arguments, **extra)

    def test_traces(self):
        lines = self.output("bench", "throughput", "--traces").splitlines()
        self.assertEqual([line.split()[0] for line in lines], TRACES)

    def test_fields(self):
        report = self.report("-n", 6, "--parallel", 3, "--ttft-target", 1e6, "--itl-target", 1e6)
        self.assertEqual(set(report), {
            "model", "trace", "seed", "batching", "parallel", "chunk", "machine", "requests", "failed", *LATENCIES, "cut",
            "seconds", "prompt_tokens", "cached_tokens", "generated_tokens", "prompt_tps", "generated_tps", "total_tps",
            "continuous_over_static_bound", "goodput", "prefix_hit_rate", "preemptions", "kv",
            "prediction_error", "batch", "tenants"})
        self.assertEqual(set(report["machine"]), {"cpu", "cpus", "load_before", "threads", "level"})
        self.assertEqual((report["requests"], report["failed"], report["trace"]), (6, 0, "lognormal"))
        for name in LATENCIES:
            self.assertEqual(set(report[name]), PERCENTILES)
            ranks = [report[name][rank] for rank in ("p50", "p90", "p99", "max")]
            self.assertEqual(ranks, sorted(ranks))
        self.assertEqual(report["ttft_ms"]["n"], 6)
        self.assertEqual(report["itl_ms"]["n"], report["generated_tokens"] - 6)
        self.assertAlmostEqual(report["generated_tps"] * report["seconds"], report["generated_tokens"], delta=0.01)
        self.assertEqual((report["goodput"]["good"], report["goodput"]["share"]), (6, 1))
        batch = report["batch"]
        self.assertEqual((len(batch["over_time"]), len(batch["in_flight_over_time"])), (20, 20))
        self.assertLessEqual(batch["max"], 3)
        self.assertLessEqual(1, batch["mean"])
        self.assertEqual([tenant["tenant"] for tenant in report["tenants"]], ["a"])
        self.assertGreaterEqual(report["continuous_over_static_bound"], 1)

    def test_kv_memory(self):
        kv = self.report("-n", 12, "--parallel", 4)["kv"]
        self.assertEqual(set(kv), {"bytes", "blocks", "most_blocks_used", "samples", "slots_per_token",
                                   "unused_slots_per_sequence"})
        self.assertLessEqual(kv["most_blocks_used"], kv["blocks"])
        if "llama" in harness.FILES[0]:  # one group of layers, and nothing is shared: only a last block has free slots
            self.assertGreaterEqual(kv["slots_per_token"], 1)
            self.assertTrue(0 <= kv["unused_slots_per_sequence"] <= 15)
        small = self.report("-n", 12, "--parallel", 4, "--kv-memory", 1)
        self.assertLessEqual(small["kv"]["bytes"], 1000000)
        words = self.output("bench", "throughput", "-m", harness.FILES[0], "-n", 4)
        self.assertRegex(words, r"KV memory: .*, all that 16 x \d+ tokens need; .* were free")
        words = self.output("bench", "throughput", "-m", harness.FILES[0], "-n", 4, "--kv-memory", 1)
        self.assertIn("as --kv-memory says", words)

    def test_prefix_cache(self):
        shared = self.report("--trace", "shared-prefix", "-n", 12, "--parallel", 2)
        self.assertGreater(shared["cached_tokens"], 0)
        self.assertGreater(shared["prefix_hit_rate"], 0)
        off = self.report("--trace", "shared-prefix", "-n", 12, "--parallel", 2, "--no-prefix-cache")
        self.assertEqual((off["cached_tokens"], off["prefix_hit_rate"]), (0, 0))

    def test_goodput_needs_a_target(self):
        self.assertIsNone(self.report("-n", 2)["goodput"])
        strict = self.report("-n", 2, "--ttft-target", 0.001)["goodput"]
        self.assertEqual((strict["good"], strict["share"], strict["requests_per_second"]), (0, 0, 0))

    def test_targets_of_a_file(self):
        path = self.home / "requests.jsonl"
        path.write_text('{"prompt_tokens": 9, "output_tokens": 4, "ttft_target_ms": 0.001}\n'
                        '{"prompt_tokens": 9, "output_tokens": 4, "ttft_target_ms": 1e6, "itl_target_ms": 1e6}\n'
                        '{"prompt_tokens": 9, "output_tokens": 4, "tenant": "x", "tenant_weight": 2, "priority": 1}\n')
        self.assertEqual(self.report("--trace", path)["goodput"]["good"], 2)
        self.assertEqual(self.report("--trace", path, "--ttft-target", 0.001)["goodput"]["good"], 1)

    def test_hidden_targets(self):
        hidden = self.report("-n", 4, "--ttft-target", 1e6, "--itl-target", 1e6, "--hide-targets")
        self.assertEqual(hidden["goodput"]["good"], 4)  # they still count

    def test_first_come(self):
        scene = ("--trace", "poisson", "--rate", 500, "-n", 24, "--ttft-target", 1e6, "--itl-target", 1e6, "--chunk", 64)
        first = self.report(*scene, "--first-come")
        self.assertEqual(first["goodput"]["good"], 24)
        self.assertEqual(first["generated_tokens"], self.report(*scene)["generated_tokens"])

    def test_padding(self):
        static = self.report("--batching", "static", "-n", 8, "--parallel", 4)
        padded = self.report("--batching", "static", "--padding", "-n", 8, "--parallel", 4)
        self.assertEqual(padded["batching"], "padded static")
        for field in ("requests", "failed", "prompt_tokens", "generated_tokens"):  # padding counts for nothing
            self.assertEqual(padded[field], static[field])
        self.assertGreater(padded["kv"]["most_blocks_used"], static["kv"]["most_blocks_used"])
        self.assert_bad(2, "--batching static", "--padding")
        self.assert_bad(2, "all at once", "--padding", "--batching", "static", "--trace", "poisson")

    def test_max_wait(self):
        waits = self.report("--trace", "fixed", "-n", 2, "--batching", "dynamic", "--max-wait", 300)
        self.assertGreaterEqual(waits["ttft_ms"]["p50"], 300)
        # Nobody waits for a batch that is full.
        full = self.report("--trace", "fixed", "-n", 2, "--parallel", 2, "--batching", "dynamic", "--max-wait", 1e7)
        self.assertEqual(full["failed"], 0)

    def test_seed_decides_the_trace(self):
        sizes = [[self.report("-n", 8, "--seed", seed)[name] for name in ("prompt_tokens", "generated_tokens")]
                 for seed in (1, 1, 2)]
        self.assertEqual(sizes[0], sizes[1])
        self.assertNotEqual(sizes[0], sizes[2])

    def test_batching(self):
        reports = {kind: self.report("-n", 12, "--parallel", 4, "--batching", kind)
                   for kind in ("continuous", "static", "dynamic")}
        totals = {(r["prompt_tokens"], r["generated_tokens"]) for r in reports.values()}
        self.assertEqual(len(totals), 1)
        # Every static batch ends with its longest answer: more steps for the same tokens.
        self.assertGreater(reports["static"]["batch"]["steps"], reports["continuous"]["batch"]["steps"])

    def test_arrivals(self):
        at_once = self.report("--trace", "fixed", "-n", 5)
        poisson = self.report("--trace", "fixed", "-n", 5, "--rate", 20)
        self.assertGreater(poisson["seconds"], 0.05)
        self.assertLessEqual(poisson["ttft_ms"]["max"], 1000 * poisson["seconds"])
        self.assertEqual(at_once["prompt_tokens"], poisson["prompt_tokens"])
        self.report("--trace", "fixed", "-n", 5, "--rate", 200, "--arrivals", "bursty")
        burst = self.report("--trace", "bursty", "-n", 5, "--burst", 100000, "--rate", 1e6)
        self.assertEqual(burst["batch"]["max"], 5)  # all in one

    def test_every_trace(self):
        for name in TRACES:
            report = self.report("--trace", name, "-n", 6, "--rate", 500)
            self.assertEqual((report["trace"], report["requests"], report["failed"]), (name, 6, 0), name)

    def test_file(self):
        path = self.home / "requests.jsonl"
        path.write_text('{"prompt_tokens": 9, "output_tokens": 4, "tenant": "x"}\n'
                        '{"prompt": [5, 6, 7], "output_tokens": 3, "tenant": "y", "arrival_ms": 30}\n')
        report = self.report("--trace", path)
        self.assertEqual((report["requests"], report["prompt_tokens"], report["generated_tokens"]), (2, 12, 7))
        self.assertEqual([tenant["tenant"] for tenant in report["tenants"]], ["x", "y"])
        self.assertGreaterEqual(report["seconds"], 0.03)
        self.assertEqual(self.report("--trace", "-", "-n", 1, stdin=path.read_bytes())["generated_tokens"], 4)

    def test_failures_are_counted(self):
        path = self.home / "requests.jsonl"
        path.write_text('{"prompt_tokens": 9, "output_tokens": 4}\n{"prompt_tokens": 9999, "output_tokens": 4}\n')
        report = self.report("--trace", path)
        self.assertEqual((report["requests"], report["failed"], report["generated_tokens"]), (2, 1, 4))
        self.assertIn("9999", report["first_error"])
        self.assert_bad(1, ["9999"], "--trace", "-", stdin=path.read_bytes().splitlines()[1])

    def test_text(self):
        text = self.output("bench", "throughput", "-m", harness.FILES[0], "-n", 4, "--ttft-target", 1000)
        for word in ("tokens/s", "TTFT", "ITL", "TPOT", "e2e", "p99", "goodput", "prefix hits", "at most", "seed 1"):
            self.assertIn(word, text)

    def test_bad_files(self):
        path = self.home / "bad.jsonl"
        for text, words in {
            "": ["no requests"],
            '{"prompt_tokens": 1, "output_tokens": 1}\n{': ["bad.jsonl", "line 2"],
            '{"prompt_tokens": 1, "output_tokens": 1, "tempo": 3}': ["line 1", '"tempo"'],
            '{"prompt_tokens": 1, "output_tokens": -1}': ["line 1", '"output_tokens"', "whole number"],
        }.items():
            path.write_text(text)
            self.assert_bad(1, words, "--trace", path)
        self.assert_bad(1, ["'nosuch'", "lognormal"], "--trace", "nosuch")
        self.assert_bad(1, ["irectory"], "--trace", self.home)

    def test_bad_options(self):
        self.assert_bad(2, ["--batching", "'rolling'", "static"], "--batching", "rolling")
        self.assert_bad(2, ["--rate", "'0'"], "--rate", 0)
        self.assert_bad(2, ["--parallel", "'0'"], "--parallel", 0)
        self.assert_bad(2, ["--requests", "'0'"], "-n", 0)
        path = self.home / "requests.jsonl"
        path.write_text('{"prompt_tokens": 9, "output_tokens": 4}\n')
        self.assert_bad(2, ["--rate", "built-in"], "--trace", path, "--rate", 2)
        self.assert_bad(2, ["--arrivals", "built-in"], "--trace", path, "--arrivals", "poisson")
        self.assert_bad(2, ["--burst", "built-in"], "--trace", path, "--burst", 4)
        self.assert_bad(2, ["--burst", "'0'"], "--burst", 0)
        self.assert_bad(2, ["--arrivals bursty"], "--trace", "poisson", "--burst", 4)
        self.assert_error(2, ["no model given"], "bench", "throughput")
        self.assert_error(2, ["bench does not take 'throughputt'"], "bench", "throughputt")


if __name__ == "__main__":
    harness.main()
