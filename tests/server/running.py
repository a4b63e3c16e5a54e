"""A running server for tests, and HTTP by hand where a client library would be too polite.

The arguments of a test are those of tests/cli/harness.py: the program, and the model's file.
"""

import json
import re
import select
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests" / "cli"), str(ROOT / "tools")]

import harness  # noqa: E402

DEADLINE = 120  # seconds for anything that should be quick, under sanitizers too


class Server:
    """`sluice serve` on a free port."""

    def __init__(self, case, *options, model=None):
        self.model = Path(model or harness.FILES[0])
        self.process = subprocess.Popen([harness.PROGRAM, "serve", "-m", self.model, "--port", "0", *map(str, options)],
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL,
                                        env=case.environment())
        case.addCleanup(self.stop)
        lines = [self.process.stderr.readline().decode()]
        while lines[-1] and not (match := re.match(r"ready: http://127\.0\.0\.1:(\d+)/v1 serves ", lines[-1])):
            lines.append(self.process.stderr.readline().decode())  # warnings come before it
        if not lines[-1]:
            raise AssertionError(f"not ready: {''.join(lines)}")
        self.warnings = lines[:-1]
        self.port = int(match.group(1))
        self.name = self.model.stem

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()
        self.process.stderr.close()

    def connect(self, receive_buffer=None):
        connection = socket.socket()
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.settimeout(DEADLINE)
        connection.connect(("127.0.0.1", self.port))
        return connection

    def ask(self, method, path, body=None, headers=None):
        """One request on a connection of its own; status, headers and body."""
        with self.connect() as connection:
            connection.sendall(request(method, path, body, headers))
            return Reader(connection).response()

    def json(self, method, path, body=None, headers=None):
        status, _, text = self.ask(method, path, body, headers)
        return status, json.loads(text, parse_constant=refuse_constant)

    def metrics(self):
        """Name -> value of every metric line; labels other than the model's stay in the name."""
        status, _, text = self.ask("GET", "/metrics")
        assert status == 200
        return {re.sub(r'model_name="[^"]*",?|\{\}', "", name).replace("{}", ""): float(value)
                for name, value in re.findall(r"^([^# ]\S*) (\S+)$", text.decode(), re.M)}

    def wait_for(self, condition):
        """Waits until condition(metrics) holds."""
        end = time.monotonic() + DEADLINE
        while not condition(self.metrics()):
            if time.monotonic() > end:
                raise AssertionError(f"never came true: {self.metrics()}")
            time.sleep(0.01)


def is_idle(metrics):
    return metrics["vllm:num_requests_running"] + metrics["vllm:num_requests_waiting"] == 0


def is_busy(metrics):
    return metrics["vllm:num_requests_running"] > 0


def refuse_constant(word):
    raise ValueError(f"{word} is no JSON")


def request(method, path, body=None, headers=None):
    """Bytes of a request; a body that is no bytes is written as JSON."""
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
    lines = {"Host": "localhost", **({"Content-Length": len(body)} if body is not None else {}), **(headers or {})}
    head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return head.encode() + b"\r\n" + (body or b"")


class Reader:
    """Reads answers off a socket."""

    def __init__(self, connection):
        self.connection, self.buffer = connection, b""

    def more(self):
        piece = self.connection.recv(65536)
        if not piece:
            raise EOFError(f"closed after {self.buffer[-200:]}")
        self.buffer += piece

    def line(self):
        while b"\r\n" not in self.buffer:
            self.more()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line.decode()

    def exactly(self, n):
        while len(self.buffer) < n:
            self.more()
        piece, self.buffer = self.buffer[:n], self.buffer[n:]
        return piece

    def head(self):
        status = int(re.match(r"HTTP/1\.1 (\d{3}) ", self.line()).group(1))
        headers = {}
        while line := self.line():
            name, value = line.split(": ", 1)
            headers[name.lower()] = value
        return status, headers

    def chunk(self):
        """One chunk of a chunked body; b"" is the last."""
        piece = self.exactly(int(self.line(), 16))
        assert self.line() == ""
        return piece

    def response(self, method="GET"):
        status, headers = self.head()
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while piece := self.chunk():
                body += piece
            return status, headers, body
        return status, headers, b"" if method == "HEAD" else self.exactly(int(headers["content-length"]))

    def at_end(self):
        """True when the server closes without sending anything more."""
        return self.buffer == b"" and self.connection.recv(1) == b""


def readable(connection, seconds):
    return bool(select.select([connection], [], [], seconds)[0])


def events(body):
    """The JSON objects of an event stream, which must end in [DONE]; comments, as a slow answer has, are left out."""
    parts = [part for part in body.decode().split("\n\n") if not part.startswith(":")]
    assert parts[-2:] == ["data: [DONE]", ""], parts[-2:]
    assert all(part.startswith("data: ") for part in parts[:-1])
    return [json.loads(part[6:], parse_constant=refuse_constant) for part in parts[:-2]]
