"""Commands and options: exit codes, one-line errors, where a setting comes from, and the texts made from the tables."""

import os
import re
import shutil
import signal
import subprocess
import time
import unittest

import harness

COMMANDS = ["run", "serve", "pull", "list", "rm", "info", "tokenize", "eval", "bench",
            "bench throughput", "bench techniques", "help"]


class Usage(harness.Case):
    def test_version(self):
        self.assertRegex(self.output("--version"), r"^sluice \d+\.\d+\.\d+\n$")
        self.assertEqual(self.output("-V"), self.output("--version"))

    def test_no_command(self):
        self.assert_error(2, ["sluice help"])

    def test_unknown_command(self):
        self.assert_error(2, ["'runn'", "did you mean 'run'"], "runn")
        self.assert_error(2, ["'deploy'", "sluice help"], "deploy")
        self.assert_error(2, ["'tokenise'", "'tokenize'"], "help", "tokenise")
        self.assert_error(2, ["'bench nothing'"], "help", "bench", "nothing")

    def test_unknown_option(self):
        self.assert_error(2, ["--tempp", "did you mean --temp?"], "run", "--tempp", "1")
        self.assert_error(2, ["--temperature", "did you mean --temp?"], "run", "--temperature", "1")
        self.assert_error(2, ["-q", "sluice help run"], "run", "-q")
        self.assert_error(2, ["--json takes no value"], "list", "--json=1")
        self.assert_error(2, ["--threads"], "--threads", "2")

    def test_missing_value(self):
        self.assert_error(2, ["-n needs a value"], "run", "-n")
        self.assert_error(2, ["--seed needs a value"], "run", "--seed")

    def test_bad_numbers(self):
        for option, values in {
            "-n": ["0", "-1", "99999999999", "18446744073709551616", "1e3", "5x", " 5", "+5", "", "0x10"],
            "--temp": ["nan", "inf", "-0.1", "1e999", "0.5x", "", "hot"],
            "--top-p": ["1.1", "-1"],
            "--seed": ["-1", "18446744073709551616"],
            "-t": ["-1", "1025"],
            "--chunk": ["0"],
            "--logprobs": ["21"],
            "--kv-type": ["q4_0", ""],
            "--kv-keep": ["", "5", "4+0", "4+", "+5", "4+5+", "4+5+6+7", "a+b", "4+ 5", "4+16777217"],
            "--level": ["avx1024"],
        }.items():
            for value in values:
                self.assert_error(2, [f"'{value}'"], "run", "-m", "none", "-p", "x", option, value)

    def test_bad_logit_bias(self):
        for value in ["5", ":1", "5:", "5:x", "-1:1", "5:nan", "5:101", "99999999999999999999:1", "5 :1"]:
            self.assert_error(2, ["ID:VALUE", f"'{value}'"], "run", "-m", "none", "-p", "x", "--logit-bias", value)

    def test_operands(self):
        self.assert_error(2, ["pull needs NAME"], "pull")
        self.assert_error(2, ["rm needs NAME"], "rm")
        self.assert_error(2, ["'extra'"], "run", "-p", "x", "extra")
        self.assert_error(2, ["measures ppl", "'bleu'"], "eval", "bleu")
        self.assert_error(2, ["-f FILE"], "eval", "ppl", "-m", "none")

    def test_contradictions(self):
        self.assert_error(2, ["not both"], "run", "-m", "none", "-p", "x", "-f", "y")
        self.assert_error(2, ["--raw"], "run", "-m", "none", "-p", "x", "--raw", "--system", "y")
        self.assert_error(1, ["none"], "run", "-m", "none", "-p", "x", "--raw", SLUICE_SYSTEM="from elsewhere")
        self.assert_error(2, ["--graph"], "info", "none", "--graph", "--json")
        self.assert_error(2, ["--logprobs needs --json"], "run", "-m", "none", "-p", "x", "--logprobs", "2")
        self.assert_error(2, ["not both"], "list", "--json", "--names")

    def test_no_model(self):
        for command in (["run", "-p", "x"], ["serve"], ["tokenize"], ["info"], ["eval", "ppl", "-f", "x"], ["bench"]):
            self.assert_error(2, ["no model given", "sluice pull smollm2"], *command)

    def test_bad_model_path(self):
        empty, locked, text = self.home / "empty.gguf", self.home / "locked.gguf", self.home / "text.gguf"
        empty.touch()
        text.write_text("This is no model.\n" * 100)
        locked.write_bytes(b"GGUF")
        locked.chmod(0)
        paths = [self.home / "missing.gguf", self.home, empty, text] + ([locked] if os.geteuid() != 0 else [])
        for path in paths:
            for command in (["run", "-p", "x", "-m"], ["info"], ["tokenize", "-m"], ["bench", "-m"],
                            ["eval", "ppl", "-f", "/dev/null", "-m"]):
                self.assert_error(1, [path.name], *command, path)
        self.assert_error(1, ["nosuch"], "run", "-m", "nosuch", "-p", "x")

    def test_bad_prompt_file(self):
        self.assert_error(1, ["missing.txt"], "run", "-m", "none", "-f", self.home / "missing.txt")
        self.assert_error(1, ["irectory"], "run", "-m", "none", "-f", self.home)

    def test_control_characters_stay_out_of_errors(self):
        self.assert_error(2, ["?[31m"], "\033[31mred\nline")


class Settings(harness.Case):
    """Command line, environment, config file, default: the first that has a value wins. --level shows which one it was."""

    def assert_source(self, words, *arguments, **extra):
        self.assert_error(2, words, "run", "-m", "none", "-p", "x", *arguments, **extra)

    def test_order(self):
        self.config.write_text("level = file\n")
        self.assert_source(["--level takes", "'flag'"], "--level", "flag", SLUICE_CPU="env")
        self.assert_source(["SLUICE_CPU takes", "'env'"], SLUICE_CPU="env")
        self.assert_source(["config:1: level takes", "'file'"])
        self.assert_source(["config:1: level takes", "'file'"], SLUICE_CPU="")

    def test_model(self):
        self.config.write_text("# mine\n\n  model =  from config  \r\n")
        self.assert_error(1, ["from config"], "info")
        self.assert_error(1, ["from env"], "info", SLUICE_MODEL="from env")
        self.assert_error(1, ["from flag"], "info", "-m", "from flag", SLUICE_MODEL="from env")
        self.assert_error(1, ["from operand"], "info", "from operand", SLUICE_MODEL="from env")

    def test_names_of_variables(self):
        self.assert_source(["SLUICE_TOP_K takes"], SLUICE_TOP_K="many")
        self.assert_source(["SLUICE_THREADS takes"], SLUICE_THREADS="0.5")

    def test_last_line_counts(self):
        self.config.write_text("level = one\nlevel = two\n")
        self.assert_source(["config:2", "'two'"])

    def test_bad_config(self):
        self.config.write_text("level = ref\nthreds = 2\n")
        self.assert_source(["config:2", "'threds'"])
        self.config.write_text("threads\n")
        self.assert_source(["config:1", "key = value"])
        self.config.unlink()
        self.config.mkdir()
        self.assert_error(1, ["config"], "run", "-m", "none", "-p", "x")
        self.assertIn("sluice run", self.output("help", "run"), "help needs no config")

    def test_settings_of_other_commands_are_known(self):
        self.config.write_text("temp = 0.5\n")
        self.assert_error(1, ["nosuch"], "info", "nosuch")

    def test_home_config(self):
        folder = self.home / ".config" / "sluice"
        folder.mkdir(parents=True)
        (folder / "config").write_text("level = home\n")
        self.assert_source(["'home'"], XDG_CONFIG_HOME="")
        self.assert_source(["'home'"], XDG_CONFIG_HOME="relative")

    def test_no_home(self):
        self.assert_error(1, ["HOME"], "info", "nosuch", HOME="", XDG_CONFIG_HOME="", XDG_DATA_HOME="")


class Texts(harness.Case):
    def options_of(self, command):
        return re.findall(r"^  (?:-(\w), |    )--([a-z-]+)", self.output("help", *command.split()), re.M)

    def test_overview_lists_every_command(self):
        text = self.output("--help")
        self.assertEqual(re.findall(r"^  ([a-z]+(?: [a-z]+)?) +(?=\S)", text.split("Commands:")[1].split("Options:")[0], re.M), COMMANDS)
        self.assertEqual(text, self.output("help"))

    def test_help(self):
        for command in COMMANDS:
            text = self.output("help", *command.split())
            self.assertEqual(text, self.output(*command.split(), "--help"))
            self.assertEqual(text, self.output(*command.split(), "-h"))
            self.assertIn(f"sluice {command}", text)
            self.assertEqual([line for line in text.splitlines() if len(line) > 80], [])
            names = [name for _, name in self.options_of(command)]
            letters = [letter for letter, _ in self.options_of(command) if letter]
            self.assertEqual(len(set(names)), len(names), command)
            self.assertEqual(len(set(letters)), len(letters), command)

    def test_man_page(self):
        text = self.output("help", "--man")
        self.assertTrue(text.startswith(".TH SLUICE 1"))
        plain = text.replace("\\-", "-")
        for command in COMMANDS:
            self.assertIn(f'.SS "sluice {command}', plain)
            for _, name in self.options_of(command):
                self.assertIn(f"--{name}", plain)
        if shutil.which("groff"):
            done = subprocess.run(["groff", "-man", "-ww", "-Tutf8"], input=text.encode(), capture_output=True)
            self.assertEqual((done.returncode, done.stderr), (0, b""))

    def complete(self, *words):
        """What bash offers for the last word."""
        script = self.output("help", "--completion", "bash")
        line = " ".join(f"'{word}'" for word in ("sluice", *words))
        script += f'COMP_WORDS=({line}); COMP_CWORD={len(words)}; _sluice; printf "%s\\n" "${{COMPREPLY[@]}}"'
        folder = os.path.dirname(harness.PROGRAM)
        path = f"{folder}:{os.environ['PATH']}"
        done = subprocess.run(["bash", "-u", "-c", script], capture_output=True, text=True, cwd=self.home,
                              env=self.environment(PATH=path))
        self.assertEqual(done.stderr, "")
        return done.stdout.split()

    @unittest.skipUnless(shutil.which("bash"), "no bash")
    def test_completion(self):
        (self.home / "some.gguf").touch()
        self.assertEqual(self.complete("to"), ["tokenize"])
        self.assertEqual(self.complete("run", "--kv-t"), ["--kv-type"])
        self.assertEqual(self.complete("run", "--kv-type", "k"), ["k8v4"])
        self.assertEqual(self.complete("run", "-m", "so"), ["some.gguf"])
        self.assertEqual(self.complete("pull", "smol"), ["smollm2"])
        self.assertEqual(self.complete("help", "be"), ["bench"])
        self.assertEqual(self.complete("bench", "thr"), ["throughput"])
        self.assertEqual(self.complete("bench", "throughput", "--batching", "st"), ["static"])
        for command in COMMANDS:
            self.assertEqual(set(self.complete(*command.split(), "--")), {f"--{name}" for _, name in self.options_of(command)})


class Output(harness.Case):
    def test_full_disk(self):
        with open("/dev/full", "wb") as full:
            done = subprocess.run([harness.PROGRAM, "help"], stdout=full, stderr=subprocess.PIPE, env=self.environment())
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"No space left", done.stderr)

    def test_closed_pipe(self):
        reader, writer = os.pipe()
        os.close(reader)
        with os.fdopen(writer, "wb") as pipe:
            done = subprocess.run([harness.PROGRAM, "help", "--man"], stdout=pipe, stderr=subprocess.PIPE,
                                  env=self.environment())
        self.assertEqual((done.returncode, done.stderr), (0, b""))

    def test_no_colours_in_pipes(self):
        done = self.run_program("nosuch", TERM="xterm")
        self.assertNotIn(b"\033", done.stderr)
        self.assertNotIn("\033", self.output("help", TERM="xterm"))


class Store(harness.Case):
    """pull, list and rm as far as they go without a network."""

    def test_empty(self):
        self.assertEqual(self.output_json("list"), [])
        self.assertEqual(self.output("list", "--names"), "")
        done = self.run_program("list")
        self.assertEqual((done.returncode, done.stdout), (0, b""))
        self.assertIn(b"sluice pull", done.stderr)

    def test_available(self):
        models = self.output_json("list", "--available")
        self.assertLessEqual({"smollm2", "gemma3-270m"}, {model["name"] for model in models})
        self.assertTrue(all(model["licence"] and model["bytes"] > 0 for model in models))
        self.assertEqual(self.output("list", "--available", "--names").split(), [model["name"] for model in models])

    def test_list_resolve_remove(self):
        folder = self.home / "data" / "sluice" / "models"
        folder.mkdir(parents=True)
        harness.make_gguf(folder / "mine.gguf", {"general.architecture": "nonesuch"}, {"weight": [32]})
        size = (folder / "mine.gguf").stat().st_size
        self.assertEqual(self.output_json("list"),
                         [{"name": "mine", "path": str(folder / "mine.gguf"), "bytes": size}])
        self.assertEqual(self.output_json("info", "mine")["file_bytes"], size)
        self.assertEqual(self.output_json("rm", "mine"), {"removed": ["mine"]})
        self.assertEqual(self.output_json("list"), [])

    def pull_with(self, script):
        """Starts a pull whose python3 (which would run pip) is this shell script."""
        folder = self.home / "bin"
        folder.mkdir()
        (folder / "python3").write_text(f"#!/bin/sh\n{script}\n")
        (folder / "python3").chmod(0o755)
        process = subprocess.Popen([harness.PROGRAM, "pull", "smollm2"], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   stdin=subprocess.DEVNULL,
                                   env=self.environment(PATH=f"{folder}:{os.environ['PATH']}"))
        self.addCleanup(process.kill)
        return process

    def assert_nothing_left(self):
        left = [path for path in (self.home / "data").rglob("*") if not path.is_dir() and path.name != ".lock"]
        self.assertEqual(left, [])
        self.assertEqual(self.output_json("list"), [])

    def test_interrupted_pull(self):
        started = self.home / "started"
        process = self.pull_with(f"touch {started}; exec sleep 60")
        end = time.monotonic() + 20
        while not started.exists() and time.monotonic() < end:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.communicate(timeout=20), (b"", b""))
        self.assertEqual(process.returncode, 130)
        self.assert_nothing_left()

    def test_failed_pull(self):
        process = self.pull_with("echo 'ERROR: no network here' >&2; exit 1")
        output, errors = process.communicate(timeout=20)
        self.assertEqual((process.returncode, output), (1, b""))
        self.assertRegex(errors.decode(), r"^sluice: .*no network here.*\n$")
        self.assert_nothing_left()

    def test_unknown_names(self):
        self.assert_error(1, ["nosuch", "smollm2"], "pull", "nosuch")
        self.assert_error(1, ["nosuch"], "rm", "nosuch")
        self.assert_error(1, [""], "rm", "../outside")


if __name__ == "__main__":
    harness.main()
