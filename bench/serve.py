#!/usr/bin/env python3
"""Streams from servers that speak OpenAI's API, many clients at once: bench/serve.py NAME=HOST:PORT...

Each round asks every server in turn, with the same client, the same prompts (of random words, with a number in front so
that none shares a prefix with another) and the same number of generated tokens (ignore_eos). Printed for each server:
tokens per second over all streams, time to the first token, and time between tokens; medians over the rounds.
"""

import argparse
import json
import random
import socket
import statistics
import threading
import time

WORDS = """river stone window paper garden light mountain letter music winter bread harbour engine silver forest morning
street kitchen island shadow bridge summer voice candle market ocean valley clock mirror tower""".split()


def stream(address, prompt, n_tokens, model, times):
    """Times of arrival of the chunks with text of one streamed completion, from its sending on."""
    body = json.dumps({"model": model, "prompt": prompt, "max_tokens": n_tokens, "temperature": 0, "stream": True,
                       "ignore_eos": True, "stream_options": {"include_usage": True}}).encode()
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port))) as connection:
        started = time.monotonic()
        connection.sendall(f"POST /v1/completions HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
                           f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        buffer, generated = b"", 0
        while piece := connection.recv(65536):
            now = time.monotonic() - started
            buffer += piece
            *lines, buffer = buffer.split(b"\n")
            for line in lines:
                if line.startswith(b"data: {"):
                    event = json.loads(line[6:])
                    if event.get("usage"):
                        generated = event["usage"]["completion_tokens"]
                    if event.get("choices") and event["choices"][0].get("text"):
                        times.append(now)
    if generated != n_tokens:
        raise SystemExit(f"{address}: {generated} tokens instead of {n_tokens}")


def measure(address, prompts, n_tokens, model):
    """Tokens per second, times to the first chunk and gaps between chunks of all prompts at once."""
    times = [[] for _ in prompts]
    threads = [threading.Thread(target=stream, args=(address, prompt, n_tokens, model, own))
               for prompt, own in zip(prompts, times)]
    started = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - started
    if not all(times):
        raise SystemExit(f"{address}: a stream without text")
    gaps = sorted(b - a for own in times for a, b in zip(own, own[1:])) or [0.0]
    return (len(prompts) * n_tokens / seconds, statistics.median(own[0] for own in times),
            statistics.median(gaps), gaps[int(0.99 * (len(gaps) - 1))])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="+", metavar="NAME=HOST:PORT")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--words", type=int, default=100, help="of a prompt")
    parser.add_argument("--tokens", type=int, default=64, help="to generate for each client")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--model", help="name to ask for; without it, the server's own")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    servers = dict(server.split("=", 1) for server in options.servers)
    figures = {name: [] for name in servers}
    for round_number in range(options.rounds):
        order = list(servers) if round_number % 2 == 0 else list(servers)[::-1]
        for name in order:
            words = random.Random(round_number)
            prompts = [f"{round_number} {i} " + " ".join(words.choices(WORDS, k=options.words - 2))
                       for i in range(options.clients)]
            figures[name].append(measure(servers[name], prompts, options.tokens, options.model))
    names = ("tokens_per_s", "ttft_p50_s", "gap_p50_s", "gap_p99_s")
    medians = {name: dict(zip(names, map(statistics.median, zip(*rounds)))) for name, rounds in figures.items()}
    if options.json:
        print(json.dumps(medians))
        return
    for name, row in medians.items():
        print(f"{name:16} {row['tokens_per_s']:8.1f} tokens/s   first {1000 * row['ttft_p50_s']:7.1f} ms   "
              f"between {1000 * row['gap_p50_s']:6.2f} ms, p99 {1000 * row['gap_p99_s']:6.2f} ms")


if __name__ == "__main__":
    main()
