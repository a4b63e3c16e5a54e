"""The cache of packed weights as the user meets it. Arguments: the program and a tiny model."""

import shutil

import harness


class Cache(harness.Case):
    def setUp(self):
        super().setUp()
        self.folder = self.home / "cache" / "sluice"
        self.model = self.home / "model.gguf"
        shutil.copy(harness.FILES[0], self.model)

    def environment(self, **extra):
        return super().environment(**{"XDG_CACHE_HOME": str(self.home / "cache"), **extra})

    def answer(self, *arguments, **extra):
        return self.output("run", "-m", self.model, "--raw", "-p", "Once", "-n", 8, "--temp", 0, *arguments, **extra)

    def files(self):
        return sorted(self.folder.iterdir()) if self.folder.exists() else []

    def test_second_start(self):
        first = self.answer()
        [file] = self.files()
        number = file.stat().st_ino
        self.assertEqual(self.folder.stat().st_mode & 0o7777, 0o700)
        self.assertEqual(self.answer(), first)
        self.assertEqual(self.answer("--verify"), first)
        self.assertEqual(self.answer("--no-cache"), first)
        self.assertEqual([f.stat().st_ino for f in self.files()], [number])

    def test_usual_place(self):
        """Without XDG_CACHE_HOME, or with one that is no absolute path, it is ~/.cache."""
        for value in ["", "relative"]:
            self.answer(XDG_CACHE_HOME=value)
            self.assertEqual(len(list((self.home / ".cache" / "sluice").iterdir())), 1)
            shutil.rmtree(self.home / ".cache")

    def test_off(self):
        self.answer("--no-cache")
        self.answer(SLUICE_NO_CACHE="1")
        self.answer(SLUICE_NO_CACHE="yes")
        self.config.write_text("no-cache = true\n")
        self.answer()
        self.assertEqual(self.files(), [])
        self.answer(SLUICE_NO_CACHE="0")  # the environment comes before the config file
        self.assertEqual(len(self.files()), 1)
        self.files()[0].unlink()
        self.config.write_text("no-cache = false\n")
        self.answer()
        self.assertEqual(len(self.files()), 1)

    def test_wrong_flag_value(self):
        self.assert_error(2, ["SLUICE_NO_CACHE", "maybe"], "run", "-m", self.model, "-p", "x", SLUICE_NO_CACHE="maybe")

    def test_verify(self):
        first = self.answer()
        [file] = self.files()
        content = bytearray(file.read_bytes())
        content[-5000] ^= 1
        file.write_bytes(content)
        done = self.run_program("run", "-m", self.model, "--raw", "-p", "Once", "-n", 8, "--temp", 0, "--verify")
        self.assertEqual((done.returncode, done.stdout.decode()), (0, first))
        self.assertIn(b"damaged", done.stderr)
        self.assertEqual(self.answer("--verify"), first)

    def test_size(self):
        done = self.run_program("run", "-m", self.model, "--raw", "-p", "Once", "-n", 1, SLUICE_CACHE_SIZE="1")
        self.assertEqual(done.returncode, 0)
        size = sum(file.stat().st_size for file in self.files())
        self.assertLessEqual(size, 1000000)
        self.assertEqual(b"--cache-size" in done.stderr, size == 0)

    def test_remove(self):
        """rm takes a pulled model's packed weights along, and no other's."""
        store = self.home / "data" / "sluice" / "models"
        store.mkdir(parents=True)
        shutil.copy(harness.FILES[0], store / "tiny.gguf")
        self.output("run", "-m", "tiny", "--raw", "-p", "Once", "-n", 1)
        self.answer()
        self.assertEqual(len(self.files()), 2)
        self.output("rm", "tiny")
        self.assertEqual(len(self.files()), 1)
        self.answer("--verify")

    def test_same_file_elsewhere(self):
        """What counts is the file, not where it lies or what it is called."""
        self.answer()
        self.model = self.model.rename(self.home / "moved.gguf")
        self.answer()
        self.assertEqual(len(self.files()), 1)


if __name__ == "__main__":
    harness.main()
