"""`bench techniques`: the table's rows, sides and figures. Arguments: the program and two tiny models."""

import harness

TECHNIQUES = ["KV cache", "KV paging", "KV type", "batching", "continuous batching", "dynamic batching", "prefix sharing",
              "chunked prefill", "weight type", "threads", "operator fusion"]
SIDE = {"label", "values", "median", "bytes"}


class Techniques(harness.Case):
    def check_quality(self, row):
        quality = row["quality"]
        self.assertGreater(quality["n"], 0, row)
        if quality["of"] == "generated tokens":
            self.assertEqual(set(quality), {"of", "n", "different"})
        else:
            self.assertEqual(set(quality), {"of", "n", "different", "kld_mean", "ppl_off", "ppl_on"})
            self.assertGreaterEqual(quality["kld_mean"], 0)
        # What changes no arithmetic changes no bit (contract 1).
        if row["technique"] not in ("KV type", "weight type"):
            self.assertEqual(quality["different"], 0, row)
        else:
            self.assertGreater(quality["different"], 0, row)
            self.assertGreater(quality["kld_mean"], 0, row)

    def check_row(self, row, n_rounds):
        self.assertEqual(set(row), {"technique", "measured", "unit", "lower_is_better", "off", "on", "speedup", "quality",
                                    "memory", "memory_saved_bytes"})
        for side in (row["off"], row["on"]):
            self.assertEqual(set(side), SIDE)
            self.assertEqual(len(side["values"]), n_rounds)
            self.assertTrue(all(value > 0 for value in side["values"]), row)
        self.assertNotEqual(row["off"]["label"], row["on"]["label"])
        off, on = row["off"]["values"], row["on"]["values"]
        ratios = sorted(a / b if row["lower_is_better"] else b / a for a, b in zip(off, on))
        self.assertAlmostEqual(row["speedup"]["min"] / ratios[0], 1, places=6)
        self.assertAlmostEqual(row["speedup"]["max"] / ratios[-1], 1, places=6)
        if row["memory"] is None:
            self.assertEqual((row["off"]["bytes"], row["memory_saved_bytes"]), (None, None))
        else:
            self.assertEqual(row["memory_saved_bytes"], row["off"]["bytes"] - row["on"]["bytes"])
        self.check_quality(row)

    def test_json(self):
        report = self.output_json("bench", "techniques", "-m", harness.FILES[0], "-m", harness.FILES[1], "-t", 1, "-r", 1)
        self.assertEqual(set(report), {"models", "machine", "rounds", "seed", "text_tokens", "poisson_rate", "rows"})
        self.assertEqual(report["models"], harness.FILES[:2])
        self.assertEqual(list(dict.fromkeys(row["technique"] for row in report["rows"])),
                         [name for name in TECHNIQUES if name != "threads"])
        for row in report["rows"]:
            self.check_row(row, 1)
        rows = {row["technique"]: row for row in report["rows"]}
        self.assertEqual(rows["KV cache"]["off"]["bytes"], 0)
        paging = rows["KV paging"]
        self.assertEqual(paging["off"]["bytes"], paging["on"]["bytes"])
        kinds = [row["on"]["label"] for row in report["rows"] if row["technique"] == "KV type"]
        self.assertEqual(len(set(kinds)), len(kinds))
        self.assertNotIn("f16", kinds)

    def test_only(self):
        report = self.output_json("bench", "techniques", "-m", harness.FILES[0], "-t", 2, "-r", 2, "--only", "threads",
                                  "--only", "KV cache")
        self.assertEqual([row["technique"] for row in report["rows"]], ["KV cache", "threads", "threads"])
        for row in report["rows"]:
            self.check_row(row, 2)

    def test_table(self):
        text = self.output("bench", "techniques", "-m", harness.FILES[0], "-t", 1, "-r", 1, "--only", "operator fusion",
                           "--only", "KV type", "--only", "KV cache")
        rows = [line for line in text.splitlines() if line.startswith("| ")]
        self.assertTrue(all(line.count("|") == 9 for line in rows))
        self.assertEqual(list(dict.fromkeys(line.split("|")[1].strip() for line in rows[2:])),
                         ["KV cache", "KV type", "operator fusion"])
        self.assertIn("seed 1;", text)
        self.assertRegex(text, r"same bits at \d+ positions")
        self.assertRegex(text, r"KLD \d")
        self.assertRegex(text, r"same \d+ tokens")

    def test_errors(self):
        self.assert_error(2, ["no model given"], "bench", "techniques")
        self.assert_error(2, ["--rounds", "'0'"], "bench", "techniques", "-m", harness.FILES[0], "-r", 0)
        self.assert_error(1, ["missing.gguf"], "bench", "techniques", "-m", harness.FILES[0], "-m",
                          self.home / "missing.gguf")
        self.assert_error(2, ["'magic'", "KV cache", "operator fusion"], "bench", "techniques", "-m", harness.FILES[0],
                          "-t", 1, "--only", "magic")
        self.assert_error(2, ["at most 16"], "bench", "techniques", *["-m", "x"] * 17)


if __name__ == "__main__":
    harness.main()
