"""The programs of examples/, on a tiny model. Arguments: sluice, the model, complete, many, embed."""

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "cli"))
import harness  # noqa: E402


class Examples(harness.Case):
    def setUp(self):
        super().setUp()
        self.model, self.complete, self.many, self.embed = harness.FILES

    def example(self, program, *arguments, code=0):
        done = subprocess.run([program, *arguments], capture_output=True, timeout=120, env=self.environment())
        self.assertEqual(done.returncode, code, done.stderr)
        self.assertEqual(done.stderr == b"", code == 0, done.stderr)
        return done.stdout.decode()

    def answer(self, prompt, n_tokens):
        """What the program of the command line says to the same prompt."""
        return self.output_json("run", "-m", self.model, "--raw", "-p", prompt, "-n", n_tokens, "--temp", 0)["text"]

    def test_complete(self):
        for prompt in ("the quick brown fox", "a"):
            text = self.example(self.complete, self.model, prompt)
            self.assertGreater(len(text), 8)
            self.assertEqual(text, self.answer(prompt, 32) + "\n")

    def test_many(self):
        prompts = [f"the {word}" for word in ("dog", "fox", "river", "station", "morning")] * 4
        printed = self.example(self.many, self.model, *prompts)
        expected = {prompt: self.answer(prompt, 16) for prompt in set(prompts)}
        self.assertEqual(printed, "".join(f"{prompt}|{expected[prompt]}\n" for prompt in prompts))

    def test_embed(self):
        lines = self.example(self.embed, self.model, "the dog", "the river", "the dog").splitlines()
        cosines = [float(line.split()[0]) for line in lines]
        self.assertEqual([line.split(" ", 1)[1] for line in lines], ["the dog", "the river", "the dog"])
        self.assertEqual((cosines[0], cosines[2]), (1, 1))
        self.assertTrue(-1 <= cosines[1] < 0.9999, cosines)

    def test_errors(self):
        for program in (self.complete, self.many, self.embed):
            self.example(program, code=2)
            self.assertEqual(self.example(program, str(self.home / "none.gguf"), "x", code=1), "")
            self.assertEqual(self.example(program, self.model, "a " * 5000, code=1).strip("\n"), "")


harness.main()
