"""The interactive chat, through a pseudo-terminal. Arguments: the program and a tiny model; without one, the pulled
smollm2 is taken for the case that needs a real one."""

import codecs
import os
import pty
import re
import select
import subprocess
import sys
import time

import harness


class Terminal:
    """A program on a terminal of its own."""

    def __init__(self, command, environment):
        self.master, slave = pty.openpty()
        self.process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env=environment,
                                        start_new_session=True, preexec_fn=lambda: os.close(os.open(os.ttyname(0), os.O_RDWR)))
        os.close(slave)
        self.seen = ""
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")  # a read may end inside a character

    def read(self, seconds):
        """Adds what comes within the time; false at the end."""
        if not select.select([self.master], [], [], seconds)[0]:
            return True
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the other side is closed
            return False
        self.seen += self.decoder.decode(data)
        return bool(data)

    def expect(self, pattern, seconds=60):
        """Reads until the text without control sequences matches, and takes it away up to there."""
        end = time.monotonic() + seconds
        while True:
            plain = re.sub(r"\033\[[0-9;?]*[a-zA-Z]|\r", "", self.seen)
            match = re.search(pattern, plain, re.S)
            if match:
                self.seen = plain[match.end():]
                return plain[:match.end()]
            if time.monotonic() > end or not self.read(0.1):
                raise AssertionError(f"no {pattern!r} in {plain!r}")

    def send(self, text):
        os.write(self.master, text.encode())

    def finish(self, seconds=30):
        """Exit code, once the program has ended by itself."""
        end = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < end:
            self.read(0.1)
        return self.process.poll()

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.master)


class ChatCase(harness.Case):
    def start(self, *arguments):
        command = [harness.PROGRAM, "run", "-m", harness.FILES[0], "--temp", "0", *map(str, arguments)]
        terminal = Terminal(command, self.environment(TERM="xterm"))
        self.addCleanup(terminal.close)
        terminal.expect(r"/help.*> $")
        return terminal


class Chat(ChatCase):
    def test_commands(self):
        chat = self.start("-n", 8)
        chat.send("/help\n")
        chat.expect(r"/clear.*/exit.*> $")
        chat.send("/system\n")
        chat.expect(r"no system prompt.*> $")
        chat.send("/system Be brief, Grüße.\n")
        chat.expect(r"> $")
        chat.send("/system\n")
        chat.expect(r"\nBe brief, Grüße\.\n> $")
        chat.send("/nosuch\n")
        chat.expect(r"no command /nosuch.*> $")
        chat.send("/exit\n")
        self.assertEqual(chat.finish(), 0)

    def test_conversation_and_history(self):
        chat = self.start("-n", 8, "--timings")
        chat.send("Hello there.\n")
        first = chat.expect(r"prompt (\d+) tokens.*> $")
        chat.send("And again.\n")
        second = chat.expect(r"prompt (\d+) tokens.*> $")
        count = lambda text: int(re.search(r"prompt (\d+) tokens", text).group(1))
        self.assertGreater(count(second), count(first), "the conversation is kept")
        chat.send("/clear\n")
        chat.expect(r"> $")
        chat.send("Hello there.\n")
        again = chat.expect(r"prompt (\d+) tokens.*> $")
        self.assertEqual(count(again), count(first))
        self.assertRegex(again, r"\([1-9]\d* cached\)", "the same prompt again is in the prefix cache")
        chat.send("\x04")
        self.assertEqual(chat.finish(), 0)
        history = self.home / "state" / "sluice" / "history"
        self.assertEqual(history.stat().st_mode & 0o777, 0o600)
        self.assertEqual(os.listdir(history.parent), ["history"])
        chat = self.start("-n", 8)
        chat.send("\x1b[A\x1b[A\x1b[A")
        chat.expect(r"And again\.$")
        chat.send("\x15\x04")
        self.assertEqual(chat.finish(), 0)

    def test_full_context(self):
        chat = self.start("-c", 60)
        chat.send("word " * 70 + "\n")
        chat.expect(r"sluice: the conversation has \d+ tokens.*room for 60.*/clear.*> $")
        chat.send("/clear\n")
        chat.expect(r"> $")
        chat.send("\x04")
        self.assertEqual(chat.finish(), 0)

    def test_interrupt_at_prompt(self):
        chat = self.start()
        chat.send("half a line\x03")
        self.assertEqual(chat.finish(), 0)

    def test_needs_terminal(self):
        for more in (["--json"], ["--raw"]):
            terminal = Terminal([harness.PROGRAM, "run", "-m", harness.FILES[0], *more], self.environment(TERM="xterm"))
            self.addCleanup(terminal.close)
            terminal.expect("no prompt: give -p TEXT")
            self.assertEqual(terminal.finish(), 2)

    def test_control_characters_of_a_model(self):
        """What a model says can't steer the terminal."""
        arguments = ["run", "-m", harness.FILES[0], "--raw", "-p", "x", "-n", "4", "--temp", "0"]
        escape = self.output("tokenize", "-m", harness.FILES[0], "--no-special", stdin=b"\033").split()[-1]
        arguments += ["--logit-bias", f"{escape}:100"]
        self.assertEqual(self.output(*arguments), "\033" * 4 + "\n")
        terminal = Terminal([harness.PROGRAM, *arguments], self.environment(TERM="xterm"))
        self.addCleanup(terminal.close)
        self.assertEqual(terminal.finish(), 0)
        while terminal.read(0.1) and "\n" not in terminal.seen:
            pass
        self.assertEqual(terminal.seen.strip(), "")
        self.assertNotIn("\033", terminal.seen)

    def test_colours(self):
        for environment, coloured in (({}, True), ({"NO_COLOR": "1"}, False)):
            terminal = Terminal([harness.PROGRAM, "nosuch"], self.environment(TERM="xterm", **environment))
            self.addCleanup(terminal.close)
            terminal.finish()
            while terminal.read(0.1) and "\n" not in terminal.seen:
                pass
            self.assertEqual("\033[" in terminal.seen, coloured, terminal.seen)


class Interrupted(ChatCase):
    """The answer must take long enough to be interrupted."""

    def test_interrupt_answer(self):
        chat = self.start()
        chat.send("Tell a very long story about a dragon.\n")
        chat.expect(r"dragon\.\n.{20}")
        chat.send("\x03")
        chat.expect(r"stopped.*> $", 10)
        chat.send("\x03")
        self.assertEqual(chat.finish(), 0)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        del Interrupted
        harness.main()
    else:
        harness.use_pulled_model()
        harness.main(["Interrupted"])
