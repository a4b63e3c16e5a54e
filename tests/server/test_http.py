"""HTTP by hand: limits, deadlines, clients that vanish or do not read, hostile bodies, shutting down."""

import json
import re
import signal
import socket
import struct
import time
from pathlib import Path

import running
import harness
from running import Reader, events, is_busy, is_idle, readable, request

LONG = {"prompt": "x", "n": 100, "max_tokens": 250, "ignore_eos": True}  # about 25,000 tokens
SHORT = {"prompt": "x", "max_tokens": 3, "temperature": 0}


class Http(harness.Case):
    def start(self, *options):
        self.server = running.Server(self, *options)
        return self.server

    def assert_alive(self):
        self.assertEqual(self.server.json("GET", "/health"), (200, {"status": "ok"}))
        status, answer = self.server.json("POST", "/v1/completions", SHORT)
        self.assertEqual((status, answer["usage"]["completion_tokens"]), (200, 3))

    # ---- requests ----

    def test_routes(self):
        server = self.start()
        for method, path, expected in (("GET", "/", 404), ("GET", "/v1/completions", 405), ("POST", "/health", 405),
                                       ("GET", "/v1/models?x=1", 200), ("GET", "/v1/modelsx", 404),
                                       ("BREW", "/health", 405)):
            status, headers, body = server.ask(method, path)
            self.assertEqual(status, expected, path)
            if status >= 400:
                self.assertEqual(set(json.loads(body)["error"]), {"message", "type", "param", "code"})
            self.assertEqual(headers.get("allow"), None if status != 405 else "POST" if "v1" in path else "GET, HEAD")
        with server.connect() as connection:
            connection.sendall(request("HEAD", "/health"))
            status, headers, body = Reader(connection).response("HEAD")
            self.assertEqual((status, headers["content-length"], body), (200, "16", b""))
            self.assertFalse(readable(connection, 0.1))

    def test_kept_connection(self):
        server = self.start()
        with server.connect() as connection:
            reader = Reader(connection)
            for _ in range(3):
                connection.sendall(request("POST", "/v1/completions", SHORT))
                self.assertEqual(reader.response()[0], 200)
            connection.sendall(request("GET", "/health", headers={"Connection": "close"}))
            self.assertEqual(reader.response()[1]["connection"], "close")
            self.assertTrue(reader.at_end())

    def test_pipeline(self):
        server = self.start()
        stream = {**SHORT, "stream": True}
        with server.connect() as connection:
            connection.sendall(request("POST", "/v1/completions", stream) + request("GET", "/health") +
                               request("POST", "/v1/completions", SHORT) + b"\r\n" + request("GET", "/none"))
            reader = Reader(connection)
            answers = [reader.response() for _ in range(4)]
            self.assertEqual([status for status, _, _ in answers], [200, 200, 200, 404])
            text = "".join(event["choices"][0]["text"] for event in events(answers[0][2]))
            self.assertEqual(text, json.loads(answers[2][2])["choices"][0]["text"])

    def test_bytes_one_by_one(self):
        server = self.start()
        body = json.dumps(SHORT).encode()
        chunked = b"".join(b"1\r\n" + bytes([byte]) + b"\r\n" for byte in body) + b"0\r\nTrailer: x\r\n\r\n"
        head = request("POST", "/v1/completions", headers={"Transfer-Encoding": "chunked", "Expect": "100-continue"})
        with server.connect() as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for byte in head:
                connection.sendall(bytes([byte]))
            reader = Reader(connection)
            self.assertEqual(reader.head()[0], 100)
            for byte in chunked:
                connection.sendall(bytes([byte]))
            self.assertEqual(reader.response()[0], 200)

    def test_http10(self):
        server = self.start()
        with server.connect() as connection:
            body = json.dumps({**SHORT, "stream": True})
            connection.sendall(f"POST /v1/completions HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
            reader = Reader(connection)
            status, headers = reader.head()
            self.assertEqual((status, headers.get("transfer-encoding"), headers["connection"]), (200, None, "close"))
            while not reader.buffer.endswith(b"data: [DONE]\n\n"):
                reader.more()
            self.assertEqual(len(events(reader.buffer)[-1]["choices"]), 1)
            self.assertEqual(connection.recv(1), b"")

    def test_http10_expects_nothing(self):
        server = self.start()
        with server.connect() as connection:
            body = json.dumps(SHORT)
            connection.sendall(f"POST /v1/completions HTTP/1.0\r\nContent-Length: {len(body)}\r\n"
                               "Expect: 100-continue\r\n\r\n".encode())
            self.assertFalse(readable(connection, 0.3))
            connection.sendall(body.encode())
            self.assertEqual(Reader(connection).response()[0], 200)

    # ---- limits ----

    def assert_refused(self, status, data):
        """The server answers with this status and closes, however much is sent."""
        with self.server.connect() as connection:
            try:
                connection.sendall(data)
            except (BrokenPipeError, ConnectionResetError):
                pass
            reader = Reader(connection)
            self.assertEqual(reader.response()[0], status, data[:80])
            self.assertTrue(reader.at_end())

    def test_limits(self):
        self.start("--max-body", 1)
        post = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        chunked = post + b"Transfer-Encoding: chunked\r\n\r\n"
        self.assert_refused(431, post + b"X: " + b"x" * 20000)
        self.assert_refused(431, post + b"X: y\r\n" * 100 + b"\r\n")
        self.assert_refused(400, b"\x16\x03\x01\x02\x00\x01" + b"\r\n\r\n")
        self.assert_refused(413, post + b"Content-Length: 1000001\r\n\r\n")
        self.assert_refused(413, post + b"Content-Length: 999999999999999999\r\n\r\n")
        self.assert_refused(400, post + b"Content-Length: -2\r\n\r\n")
        self.assert_refused(400, chunked + b"-2\r\nxx")
        self.assert_refused(400, chunked + b"fffffffffffffffe\r\n")
        self.assert_refused(413, chunked + b"1\r\nx\r\n" * 500000)
        self.assert_refused(413, chunked + b"fffff0\r\n" + b"x" * 2_000_000)
        self.assert_refused(400, post + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")
        self.assert_alive()

    def test_refusals_are_counted(self):
        keys = self.home / "keys"
        keys.write_text("secret\n")
        open_server = self.start("--max-body", 1, "--client-timeout", 1)
        keyed = running.Server(self, "--api-key-file", keys)
        get = b"GET /health HTTP/1.1\r\nHost: localhost\r\n"
        post = b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\n"
        cases = [(400, b"GET\r\n\r\n"), (400, post + b"Transfer-Encoding: chunked\r\n\r\nx"),
                 (400, request("POST", "/v1/completions", b"{")),
                 (403, b"GET /health HTTP/1.1\r\nHost: example.com\r\n\r\n"), (404, request("GET", "/none")),
                 (405, request("GET", "/v1/completions")), (408, post + b"Content-Length: 5\r\n\r\n"),
                 (413, post + b"Content-Length: 1000001\r\n\r\n"),
                 (414, b"GET /" + b"x" * 300 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n"),
                 (415, post + b"Content-Encoding: gzip\r\n\r\n"), (417, post + b"Expect: x\r\n\r\n"),
                 (431, get + b"X: " + b"x" * 20000), (501, post + b"Transfer-Encoding: gzip\r\n\r\n"),
                 (505, b"GET / HTTP/2.0\r\n\r\n"), (401, request("GET", "/v1/models"))]
        expected = {}
        for status, data in cases:
            with (keyed if status == 401 else open_server).connect() as connection:
                connection.sendall(data)
                self.assertEqual(Reader(connection).response()[0], status, data[:80])
            expected[status] = expected.get(status, 0) + 1
        for status, n in expected.items():
            metrics = (keyed if status == 401 else open_server).metrics()
            self.assertEqual(metrics[f'sluice:http_responses_total{{code="{status}"}}'], n, status)
        self.assertEqual(open_server.metrics()['sluice:http_responses_total{code="other"}'], 0)

    def test_slow_headers(self):
        server = self.start()
        with server.connect() as connection:
            reader, started = Reader(connection), time.monotonic()
            connection.sendall(b"GET /health HTTP/1.1\r\n")
            while not readable(connection, 1):
                connection.sendall(b"X: y\r\n")  # that some bytes come does not help
            self.assertEqual(reader.response()[0], 408)
            self.assertTrue(9 < time.monotonic() - started < 20)
        self.assert_alive()

    def test_slow_body(self):
        server = self.start("--client-timeout", 2)
        with server.connect() as connection:
            reader, started = Reader(connection), time.monotonic()
            connection.sendall(request("POST", "/v1/completions", headers={"Content-Length": 1000}))
            while not readable(connection, 0.2):
                connection.sendall(b" ")  # that some bytes come does not help
            self.assertEqual(reader.response()[0], 408)
            self.assertTrue(1.5 < time.monotonic() - started < 20)
            self.assertTrue(reader.at_end())
        self.assert_alive()

    def test_unread_answer(self):
        """A client that takes nothing of its answer is disconnected, though there is room for all of it."""
        server = self.start("--parallel", 8, "--client-timeout", 3, "--client-buffer", 100000)
        with server.connect(receive_buffer=4096) as connection:
            connection.sendall(request("POST", "/v1/completions", {**LONG, "stream": True, "logprobs": 20}))
            server.wait_for(is_busy)
            server.wait_for(lambda metrics: metrics["sluice:connections"] == 1)
            self.assertEqual(server.metrics()["sluice:slow_readers_total"], 0)
            with self.assertRaises((ConnectionResetError, EOFError)):
                Reader(connection).response()
        server.wait_for(is_idle)
        self.assert_alive()

    def test_silent_stream(self):
        """A stream that has to wait gets comments meanwhile."""
        server = self.start("--parallel", 1, "--max-requests", 2000, "--keep-alive", 1)
        others = [server.connect() for _ in range(10)]
        for other in others:
            other.sendall(request("POST", "/v1/completions", {**LONG, "priority": 5}))
        server.wait_for(is_busy)
        with server.connect() as connection:
            connection.sendall(request("POST", "/v1/completions", {**SHORT, "stream": True}))
            reader = Reader(connection)
            self.assertEqual(reader.head()[0], 200)
            self.assertEqual(reader.chunk(), b": still working\n\n")
            for other in others:
                other.close()
            body = b""
            while piece := reader.chunk():
                body += piece
            pieces = [piece for piece in body.split(b"\n\n") if not piece.startswith(b":")]
            self.assertEqual(len(events(b"\n\n".join(pieces))[-1]["choices"]), 1)
        self.assert_alive()

    def test_pages_of_other_sites(self):
        """Without keys on the loopback: neither by rebinding their name nor by sending blindly."""
        keys = self.home / "keys"
        keys.write_text("secret\n")
        server = self.start()
        open_server = running.Server(self, "--no-auth")
        keyed = running.Server(self, "--api-key-file", keys)
        for headers, expected in (({"Host": f"127.0.0.1:{server.port}"}, 200), ({"Host": "[::1]:80"}, 200),
                                  ({"Host": "rebound.example.com"}, 403), ({"Host": ""}, 403),
                                  ({"Host": "localhost.example.com:80"}, 403),
                                  ({"Origin": "http://localhost:3000"}, 200), ({"Origin": "null"}, 403),
                                  ({"Origin": "https://example.com"}, 403),
                                  ({"Origin": "chrome-extension://abcdef"}, 200)):
            for path in ("/v1/completions", "/health"):
                method, body = ("POST", SHORT) if path != "/health" else ("GET", None)
                status, _, answer = server.ask(method, path, body, headers)
                self.assertEqual(status, expected, headers)
                if status == 403:
                    self.assertIn("--no-auth", json.loads(answer)["error"]["message"])
            self.assertEqual(open_server.ask("POST", "/v1/completions", SHORT, headers)[0], 200)
            self.assertEqual(keyed.ask("POST", "/v1/completions", SHORT,
                                       {**headers, "Authorization": "Bearer secret"})[0], 200)

    def test_learned_costs_are_kept(self):
        server = self.start()
        server.json("POST", "/v1/completions", {**SHORT, "max_tokens": 200, "ignore_eos": True})
        server.process.send_signal(signal.SIGTERM)
        self.end(server)
        texts = list((self.home / "cache").rglob("cost-*.txt")) + list((self.home / ".cache").rglob("cost-*.txt"))
        self.assertEqual(len(texts), 1)
        steps = lambda: int(re.search(r"^steps (\d+)$", texts[0].read_text(), re.M).group(1))
        first = steps()
        self.assertGreaterEqual(first, 64)
        self.output("run", "-m", harness.FILES[0], "--raw", "-p", "x", "-n", "100", "--temp", "0")
        self.assertGreater(steps(), first)

    def test_hostile_json(self):
        server = self.start()
        bodies = [b"", b"{", b"null", b"[" * 1_000_000, b'{"prompt":' * 100_000, b"\xff\xfe{\x00}\x00",
                  b'{"prompt":"\\ud800"}',
                  b'{"prompt":"x","prompt":"y"}', b'{"prompt":"x","n":1e999}', b'{"prompt":"x","temperature":NaN}',
                  b'{"prompt":"x","n":99999999999999999999}', b'{"\\u0000":1}', b'{"prompt":"\xc3"}',
                  b'{"prompt":{"a":1}}', b'{"prompt":[[[1]]]}', b'{"prompt":[null]}', b'{"prompt":[-1]}',
                  b'{"prompt":[1.5]}']
        for body in bodies:
            for path in ("/v1/completions", "/v1/chat/completions"):
                started = time.monotonic()
                status, answer = server.json("POST", path, body)
                self.assertEqual(status, 400, body[:60])
                self.assertTrue(answer["error"]["message"])
                self.assertLess(time.monotonic() - started, 10)
        for text in ("\0", "a\0b", "\x7f\x1b", "\U0001F600", "\u2028"):
            status, answer = server.json("POST", "/v1/chat/completions",
                                         {"messages": [{"role": "user", "content": text}], "max_tokens": 2})
            self.assertEqual(status, 200, text)
        self.assert_alive()

    def test_huge_prompts(self):
        """What cannot fit is refused without being read, however much of it waits and whoever has left since."""
        server = self.start()
        body = json.dumps({"prompt": "A quick brown fox. " * 500_000}).encode()
        gone = []
        for _ in range(12):
            gone.append(server.connect())
            gone[-1].sendall(request("POST", "/v1/completions", body))
        for connection in gone:
            connection.close()
        started = time.monotonic()
        for path, field in (("completions", {"prompt": "y" * 9_000_000}),
                            ("chat/completions", {"messages": [{"role": "user", "content": "y" * 9_000_000}]})):
            status, answer = server.json("POST", "/v1/" + path, field)
            self.assertEqual((status, answer["error"]["code"]), (400, "context_length_exceeded"))
            self.assertIn("9000000 bytes", answer["error"]["message"])
        self.assert_alive()
        self.assertLess(time.monotonic() - started, 10)

    def test_many_idle_connections(self):
        server = self.start()
        connections = [server.connect() for _ in range(500)]
        for connection in connections[::2]:
            connection.sendall(b"POST /v1/comp")
        started = time.monotonic()
        self.assert_alive()
        self.assertLess(time.monotonic() - started, 20)
        self.assertEqual(server.metrics()["sluice:connections"], 501)
        for connection in connections:
            connection.close()
        server.wait_for(lambda metrics: metrics["sluice:connections"] == 1)

    # ---- clients that vanish or do not read ----

    def test_vanished_clients(self):
        """The only sequence is free at once, whatever the client was waiting for."""
        server = self.start("--parallel", 1)
        for body in ({**LONG, "stream": True}, LONG):
            before = server.metrics()["vllm:generation_tokens_total"]
            connection = server.connect()
            connection.sendall(request("POST", "/v1/completions", body))
            if "stream" in body:
                self.assertEqual(Reader(connection).head()[0], 200)
            server.wait_for(is_busy)
            connection.close()
            server.wait_for(is_idle)
            self.assertLess(server.metrics()["vllm:generation_tokens_total"] - before, 100 * 250)
            self.assert_alive()
        connection = server.connect()  # gone before its text is even read
        connection.sendall(request("POST", "/v1/completions", LONG))
        connection.close()
        server.wait_for(is_idle)
        self.assert_alive()

    def test_vanished_behind_pipelined_input(self):
        """However much a client has sent behind its request, that it leaves is seen at once."""
        server = self.start("--parallel", 1)
        for n, reset in ((2500, False), (2500, True), (100_000, False)):
            before = server.metrics()["vllm:generation_tokens_total"]
            connection = server.connect()
            connection.sendall(request("POST", "/v1/completions", LONG))
            server.wait_for(is_busy)
            connection.sendall(request("GET", "/health") * n)
            if reset:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()
            server.wait_for(is_idle)
            self.assertLess(server.metrics()["vllm:generation_tokens_total"] - before, 100 * 250)
        self.assert_alive()

    def test_slow_client(self):
        """A client that does not read its stream is cut off; another one gets all of its answer meanwhile."""
        server = self.start("--parallel", 8, "--client-buffer", 20)  # room for all of the other's answer, were the loop late
        with server.connect(receive_buffer=4096) as slow:
            slow.sendall(request("POST", "/v1/completions", {**LONG, "stream": True, "logprobs": 20}))
            status, answer = server.json("POST", "/v1/completions", {**LONG, "n": 4})
            self.assertEqual((status, answer["usage"]["completion_tokens"]), (200, 1000))
            server.wait_for(lambda metrics: metrics["sluice:slow_readers_total"] > 0)
            reader = Reader(slow)
            status, _ = reader.head()
            self.assertEqual(status, 200)
            pieces = b""
            while piece := reader.chunk():
                pieces += piece
            self.assertIn("too slowly", json.loads(pieces.decode().split("\n\n")[-2][6:])["error"]["message"])
        server.wait_for(is_idle)
        self.assert_alive()

    def test_late_client(self):
        """A client that reads late, but whose answer the buffers hold, gets all of it."""
        server = self.start("--parallel", 8, "--client-timeout", 600)  # the thread sanitizer takes minutes for the answer
        with server.connect(receive_buffer=4096) as late:
            late.sendall(request("POST", "/v1/completions", {**LONG, "stream": True, "logprobs": 5}))
            server.wait_for(is_busy)
            server.wait_for(is_idle)
            reader = Reader(late)
            status, _, body = reader.response()
            self.assertEqual(status, 200)
            choices = [event["choices"][0] for event in events(body)]
            self.assertEqual(sum(len(choice["logprobs"]["tokens"]) for choice in choices if choice["logprobs"]), 25000)
            self.assertEqual([choice["finish_reason"] for choice in choices].count("length"), 100)

    # ---- the process ----

    def test_idle(self):
        server = self.start()
        self.assert_alive()
        time.sleep(0.2)

        def ticks():
            fields = Path(f"/proc/{server.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
            return int(fields[11]) + int(fields[12])
        before = ticks()
        time.sleep(3)
        self.assertLessEqual(ticks() - before, 1)

    def end(self, server):
        """Exit code and the rest of standard error, which must come soon."""
        _, errors = server.process.communicate(timeout=running.DEADLINE)
        return server.process.returncode, errors

    def test_drain(self):
        server = self.start("--parallel", 2, "--drain-timeout", 1000)
        with server.connect() as stream, server.connect() as other:
            stream.sendall(request("POST", "/v1/completions", {**LONG, "stream": True}))
            reader = Reader(stream)
            self.assertEqual(reader.head()[0], 200)
            server.process.send_signal(signal.SIGTERM)
            end = time.monotonic() + running.DEADLINE
            while server.json("GET", "/health")[0] == 200 and time.monotonic() < end:
                pass
            other.sendall(request("GET", "/health"))
            status, headers, body = Reader(other).response()
            self.assertEqual((status, json.loads(body)["status"], headers["connection"]), (503, "draining", "close"))
            status, headers, _ = server.ask("POST", "/v1/completions", SHORT)
            self.assertEqual((status, headers["retry-after"]), (503, "5"))
            body = b""
            while piece := reader.chunk():
                body += piece
            ends = [event["choices"][0]["finish_reason"] for event in events(body)]
            self.assertEqual(ends.count("length"), LONG["n"])
        self.assertEqual(self.end(server), (0, b""))

    def test_second_signal(self):
        server = self.start("--parallel", 1)
        with server.connect() as stream:
            stream.sendall(request("POST", "/v1/completions", {**LONG, "stream": True}))
            self.assertEqual(Reader(stream).head()[0], 200)
            server.process.send_signal(signal.SIGINT)
            time.sleep(0.1)
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(self.end(server), (130, b""))

    def test_drain_ends(self):
        """Neither what takes long nor a client that does not read its answer keeps the process."""
        for n, body, done, options, words in (
                (5, LONG, False, ("--parallel", 1, "--max-requests", 2000), rb"[1-9] requests that ran were cut off"),
                (1, {**LONG, "stream": True, "logprobs": 5}, True, ("--parallel", 8, "--client-timeout", 600),
                 rb" 1 connections that had not taken their answer")):
            server = self.start("--drain-timeout", 1, *options)
            connections = [server.connect(receive_buffer=4096) for _ in range(n)]
            for connection in connections:
                connection.sendall(request("POST", "/v1/completions", body))
            server.wait_for(is_busy)
            if done:
                server.wait_for(is_idle)
            started = time.monotonic()
            server.process.send_signal(signal.SIGTERM)
            code, errors = self.end(server)
            self.assertTrue(0.9 < time.monotonic() - started < 60)
            self.assertEqual((code, errors.count(b"\n")), (1, 1), errors)
            self.assertRegex(errors, rb"--drain-timeout.*" + words)
            for connection in connections:
                with connection, self.assertRaises((ConnectionResetError, EOFError)):
                    while True:
                        Reader(connection).response()

    def test_idle_server_ends_at_once(self):
        server = self.start()
        with server.connect():  # an idle connection holds nobody up
            server.process.send_signal(signal.SIGTERM)
            self.assertEqual(self.end(server), (0, b""))

    def test_starting(self):
        model = harness.FILES[0]
        self.assert_error(2, ["0.0.0.0", "--api-key-file", "--no-auth"], "serve", "-m", model, "--host", "0.0.0.0")
        self.assert_error(2, ["nowhere.invalid"], "serve", "-m", model, "--host", "nowhere.invalid")
        self.assert_error(1, ["keys"], "serve", "-m", model, "--api-key-file", self.home / "keys")
        self.assert_error(2, ["not both"], "serve", "-m", model, "--api-key-file", self.home / "keys", "--no-auth")
        self.assert_error(1, ["--ctx 300", "256"], "serve", "-m", model, "-c", 300)
        server = self.start()
        self.assert_error(1, ["in use"], "serve", "-m", model, "--port", server.port)
        keys = self.home / "keys"
        for text in ("", "# none\n", "two words\n", "twice\ntwice\n", "x" * 256):
            keys.write_text(text)
            self.assert_error(1, ["keys"], "serve", "-m", model, "--api-key-file", keys)


if __name__ == "__main__":
    harness.main()
