#!/usr/bin/env python3
"""Replays a trace over HTTP on servers that speak OpenAI's API: bench/scene.py --trace FILE NAME=HOST:PORT...

Each round asks every server in turn. Prompts are random token ids, so their lengths are exact, and none shares a prefix
with another, unless a server that still runs has been asked with the same --seed before: what it found in its cache is
counted. Printed for each server and tenant: time to the first token, gaps between streamed chunks, tokens per second;
medians over the rounds, and the longest gap of all. With --against FILE --alone TENANT each round has three runs (FILE,
the trace, and of the trace the requests of TENANT alone), and what the two cost each other is printed as well.
"""

import argparse
import bisect
import collections
import dataclasses
import json
import math
import random
import socket
import statistics
import threading
import time

TIMEOUT_S = 900
FIRST_ID, LAST_ID = 100, 20000  # ordinary tokens in all vocabularies measured here
FIELDS = {"prompt_tokens", "output_tokens", "arrival_ms", "tenant"}
Server = collections.namedtuple("Server", "name host port fields")  # fields: what each request has besides


@dataclasses.dataclass
class Answer:
    """One stream as it came; times are of time.monotonic, in seconds."""
    tenant: str
    sent: float = 0
    times: list = dataclasses.field(default_factory=list)  # of the chunks
    tokens: int = 0  # generated, as the server counts
    cached: int = 0  # of the prompt, as the server counts

    def gaps(self):
        """Pairs of a chunk's arrival and the seconds since the chunk before."""
        return [(b, b - a) for a, b in zip(self.times, self.times[1:])]


def read_trace(path):
    """The requests of a JSONL file, as dictionaries. Those with fields that a server cannot be told are refused."""
    with open(path, encoding="utf-8") as file:
        requests = [{"arrival_ms": 0, "tenant": ""} | json.loads(line) for line in file if line.strip()]
    for number, request in enumerate(requests, 1):
        if request.keys() != FIELDS:
            raise SystemExit(f"{path}, request {number}: missing or unknown: {sorted(request.keys() ^ FIELDS)}")
    return requests


def http_request(server, request, key):
    """The bytes of the request. The prompt is drawn by the key, which no other request has."""
    prompt = random.Random(key).choices(range(FIRST_ID, LAST_ID + 1), k=request["prompt_tokens"])
    body = json.dumps({"prompt": prompt, "max_tokens": request["output_tokens"], "temperature": 0, "ignore_eos": True,
                       "stream": True, "stream_options": {"include_usage": True}} | server.fields).encode()
    return (f"POST /v1/completions HTTP/1.1\r\nHost: {server.host}\r\nContent-Type: application/json\r\n"
            f"Connection: close\r\nContent-Length: {len(body)}\r\n\r\n").encode() + body


def receive(server, payload, due, answer):
    """Sends the request when it is due. Returns what came in, each piece with its time; it is read when all is quiet."""
    pieces = []
    time.sleep(max(0, due - time.monotonic()))
    with socket.create_connection((server.host, server.port), timeout=TIMEOUT_S) as connection:
        answer.sent = time.monotonic()
        connection.sendall(payload)
        while piece := connection.recv(65536):
            pieces.append((time.monotonic(), piece))
    return pieces


def read_answer(pieces, request, answer):
    """Fills in the answer. A chunk is an event with a choice, but not the last one, which only says why it ended."""
    if not pieces or b" 200 " not in pieces[0][1].split(b"\r\n", 1)[0]:
        raise ValueError("no answer: " + b"".join(piece for _, piece in pieces)[:1000].decode(errors="replace"))
    buffer, usage = b"", {}
    for now, piece in pieces:
        *lines, buffer = (buffer + piece).split(b"\n")
        for line in lines:
            event = json.loads(line[6:]) if line.startswith(b"data: {") else {}
            if event.get("error"):
                raise ValueError(f"error amid the stream: {event['error']}")
            usage = event.get("usage") or usage
            for choice in event.get("choices") or []:
                if choice.get("text") or not choice.get("finish_reason"):
                    answer.times.append(now)
    answer.tokens = usage.get("completion_tokens", 0)
    answer.cached = (usage.get("prompt_tokens_details") or {}).get("cached_tokens", 0)
    counts, wanted = (usage.get("prompt_tokens"), answer.tokens), (request["prompt_tokens"], request["output_tokens"])
    if counts != wanted:
        raise ValueError(f"{counts} tokens of prompt and answer instead of {wanted}")
    if not answer.times:
        raise ValueError("a stream without chunks")


def replay(server, requests, key):
    """The answers to all requests, each sent at its time by a thread of its own."""
    payloads = [http_request(server, request, f"{key} {i}") for i, request in enumerate(requests)]
    answers, pieces = [Answer(request["tenant"]) for request in requests], [[] for _ in requests]
    begin = time.monotonic() + 0.1

    def run(i):
        try:
            pieces[i] = receive(server, payloads[i], begin + requests[i]["arrival_ms"] / 1000, answers[i])
        except OSError as error:
            pieces[i] = [(0, str(error).encode())]

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i, answer in enumerate(answers):
        try:
            read_answer(pieces[i], requests[i], answer)
        except ValueError as error:
            raise SystemExit(f"{server.name}, request {i + 1}: {error}") from None
    return answers


def percentile(values, share):
    """The nearest rank; 0 of nothing."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)] if values else 0.0


def figures(answers):
    """What is printed of one tenant's answers in one run; seconds."""
    firsts = [answer.times[0] - answer.sent for answer in answers]
    gaps = [gap for answer in answers for _, gap in answer.gaps()]
    tokens = sum(answer.tokens for answer in answers)
    seconds = max(answer.times[-1] for answer in answers) - min(answer.sent for answer in answers)
    return {"requests": len(answers), "tokens": tokens, "chunks": sum(len(answer.times) for answer in answers),
            "cached": sum(answer.cached for answer in answers), "tokens_per_s": tokens / seconds,
            "ttft_p50_s": statistics.median(firsts), "ttft_p99_s": percentile(firsts, 0.99),
            "gap_p50_s": statistics.median(gaps or [0.0]), "gap_p99_s": percentile(gaps, 0.99),
            "gap_max_s": max(gaps, default=0.0)}


def own_time(times, alone, begin, end):
    """How long a stream took, when there was nothing else, for the chunks that came between begin and end."""
    first, behind = (min(bisect.bisect_right(times, at), len(alone)) for at in (begin, end))
    return alone[behind - 1] - alone[max(first, 1) - 1] if behind > 0 else 0.0


def compare(against, together, alone, tenant):
    """What the streams and the tenant's long prompts cost each other in one round.

    The streams' share of the time to a first token is what they took for the same chunks when they had the machine to
    themselves. 1.25 / (1 - share) of the time alone is what the prompt may take."""
    streams = [answer for answer in together if answer.tenant != tenant]
    prompts = [answer for answer in together if answer.tenant == tenant]
    step = statistics.median(gap for answer in against for _, gap in answer.gaps())
    shares, meanwhile = [], []
    for prompt in prompts:
        begin, end = prompt.sent, prompt.times[0]
        shares.append(statistics.mean(own_time(answer.times, alike.times, begin, end) / (end - begin)
                                      for answer, alike in zip(streams, against)))
        meanwhile += [gap for answer in streams for at, gap in answer.gaps() if begin < at and at - gap < end]
    share = statistics.mean(shares)
    ttft, ttft_alone = (statistics.median(answer.times[0] - answer.sent for answer in answers)
                        for answers in (prompts, alone))
    p99_with, without = figures(streams)["gap_p99_s"], figures(against)["gap_p99_s"]
    return {"gap_p99_without_s": without, "gap_p99_with_s": p99_with, "gap_p99_ratio": p99_with / without,
            "gap_p99_meanwhile_s": percentile(meanwhile, 0.99), "step_s": step,
            "ttft_s": ttft, "ttft_alone_s": ttft_alone, "share": share,
            "streams_outlast_prompt": all(answer.times[-1] > prompt.times[0] for answer in streams for prompt in prompts),
            "ttft_bound_s": 1.25 * ttft_alone / (1 - share) if share < 1 else None}


def middle(rows):
    """Medians over the rounds, of the longest gap the maximum; a bound that a round lacks is none."""
    return {name: all(row[name] for row in rows) if isinstance(rows[0][name], bool)
            else None if any(row[name] is None for row in rows)
            else (max if name == "gap_max_s" else statistics.median)(row[name] for row in rows) for name in rows[0]}


def show(runs, scenes):
    """Prints both tables; times in milliseconds."""
    for (run, server, tenant), rows in runs.items():
        row = middle(rows)
        first, gap = ([f"{1000 * row[f'{what}_{which}_s']:.2f}" for which in ("p50", "p99", "max")[:n]]
                      for what, n in (("ttft", 2), ("gap", 3)))
        print(f"{run:8} {server:8} {tenant:8} {row['requests']:4.0f} requests {row['tokens_per_s']:8.1f} tokens/s   "
              f"first p50 {first[0]:>8} p99 {first[1]:>8}   gaps p50 {gap[0]:>6} p99 {gap[1]:>7} max {gap[2]:>7} ms   "
              f"{row['chunks']:.0f} chunks of {row['tokens']:.0f} tokens, {row['cached']:.0f} of prompts cached")
    for server, rows in scenes.items():
        row = middle(rows)
        ms = {name[:-2]: "none" if row[name] is None else f"{1000 * row[name]:.2f}" for name in row if name[-2:] == "_s"}
        held = sum(r["ttft_bound_s"] is None or r["ttft_s"] <= r["ttft_bound_s"] for r in rows)
        print(f"{server}: the streams' gaps p99 {ms['gap_p99_with']} : {ms['gap_p99_without']} ms, "
              f"{row['gap_p99_ratio']:.2f} times; until the prompt's first token {ms['gap_p99_meanwhile']} ms\n"
              f"{server}: the prompt's first token {ms['ttft']} ms, alone {ms['ttft_alone']} ms; "
              f"share of the streams {row['share']:.3f}, bound {ms['ttft_bound']} ms, held in {held} of {len(rows)} rounds"
              f"{'' if row['streams_outlast_prompt'] else '; some streams ended before it'}")


def read_options():
    """The command line; servers with their fields."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("servers", nargs="+", metavar="NAME=HOST:PORT")
    parser.add_argument("--trace", required=True, metavar="FILE")
    parser.add_argument("--against", metavar="FILE", help="the trace without the tenant of --alone")
    parser.add_argument("--alone", metavar="TENANT", help="of --trace, whose requests also run alone")
    parser.add_argument("--fields", action="append", default=[], metavar="NAME=JSON",
                        help="members for each request to the server NAME, such as 'llama={\"cache_prompt\": false}'")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if (options.against is None) != (options.alone is None):
        parser.error("--against and --alone go together")
    fields = {name: json.loads(text) for name, text in (item.split("=", 1) for item in options.fields)}
    places = dict(server.split("=", 1) for server in options.servers)
    options.servers = [Server(name, place.rsplit(":", 1)[0], int(place.rsplit(":", 1)[1]), fields.get(name, {}))
                       for name, place in places.items()]
    return options


def main():
    options = read_options()
    traces = {"trace": read_trace(options.trace)}
    if options.against:
        own = [request for request in traces["trace"] if request["tenant"] == options.alone]
        if not 0 < len(own) < len(traces["trace"]):
            raise SystemExit(f"{options.trace}: needs requests of tenant '{options.alone}' and of others")
        first = min(request["arrival_ms"] for request in own)
        own = [request | {"arrival_ms": request["arrival_ms"] - first} for request in own]
        traces = {"against": read_trace(options.against)} | traces | {"alone": own}
    runs, scenes = {}, {}
    for server in options.servers:
        replay(server, traces["trace"][:1], f"{options.seed} {server.name} warm")
    for number in range(options.rounds):
        for server in options.servers[::-1 if number % 2 else 1]:
            answers = {run: replay(server, requests, f"{options.seed} {number} {server.name} {run}")
                       for run, requests in traces.items()}
            for run, both in answers.items():
                for tenant in dict.fromkeys(answer.tenant for answer in both):
                    row = figures([answer for answer in both if answer.tenant == tenant])
                    runs.setdefault((run, server.name, tenant), []).append(row)
            if options.against:
                row = compare(answers["against"], answers["trace"], answers["alone"], options.alone)
                scenes.setdefault(server.name, []).append(row)
    if options.json:
        print(json.dumps({
            "runs": [dict(zip(("run", "server", "tenant"), key), rounds=rows, median=middle(rows))
                     for key, rows in runs.items()],
            "scenes": [{"server": name, "rounds": rows, "median": middle(rows)} for name, rows in scenes.items()]}))
    else:
        show(runs, scenes)


if __name__ == "__main__":
    main()
