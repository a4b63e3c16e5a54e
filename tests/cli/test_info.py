"""`sluice info` on files made here: what was written is what it shows."""

import harness


class Info(harness.Case):
    def setUp(self):
        super().setUp()
        self.path = self.home / "strange.gguf"
        self.strings = {"general.architecture": "nonesuch", "general.name": 'a "name"\n\033[31mred', "long": "x" * 500}
        self.tensors = {"token_embd.weight": [64, 10], "vector": [7]}
        harness.make_gguf(self.path, self.strings, self.tensors)

    def test_json(self):
        info = self.output_json("info", self.path)
        self.assertEqual(info["metadata"], self.strings)
        self.assertEqual([(t["name"], t["type"], t["shape"], t["bytes"]) for t in info["tensors"]],
                         [("token_embd.weight", "F32", [64, 10], 2560), ("vector", "F32", [7], 28)])
        self.assertEqual((info["n_params"], info["weight_bytes"]), (647, 2588))
        self.assertEqual(info["file_bytes"], self.path.stat().st_size)
        self.assertFalse(info["supported"])
        self.assertIn("nonesuch", info["reason"])

    def test_text(self):
        text = self.output("info", self.path)
        self.assertIn("64 x 10", text)
        self.assertIn("Cannot be run", text)
        self.assertIn("(500 bytes)", text)
        self.assertNotIn("\033", text)

    def test_truncated(self):
        """The header of a file cut short is shown, and that it cannot be run."""
        with open(self.path, "r+b") as file:
            file.truncate(self.path.stat().st_size - 100)
        info = self.output_json("info", self.path)
        self.assertEqual(len(info["tensors"]), 2)
        self.assertFalse(info["supported"])

    def test_broken(self):
        whole = self.path.read_bytes()
        for n in (1, 4, 20, 40, 100):
            self.path.write_bytes(whole[:n])
            self.assert_error(1, ["strange.gguf"], "info", self.path)

    def test_graph_of_unknown_architecture(self):
        self.assert_error(1, ["nonesuch"], "info", self.path, "--graph")


if __name__ == "__main__":
    harness.main()
