"""Two exsa-servers behind SMG: routing by prefix, and the loss of one; called by scripts/test-fleet."""

import argparse
import contextlib
import http.client
import json
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

PARSER = argparse.ArgumentParser()
PARSER.add_argument("--binary", required=True)
ARGS = PARSER.parse_args()
FOLDER = pathlib.Path("target/test-fleet")
CONFIG = '[metrics]\naliases = ["vllm"]\nload_header = true\n'
NAMES = ["cat", "dog", "bird", "fox", "bear", "mouse", "fish", "frog", "duck", "lion", "owl", "pig", "cow", "horse"]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def prefix(name):
    """A text of several blocks that begins unlike the others."""
    return f"{name} and {name} lived in a house by the sea and told stories to all the children of the town. " * 3


def request(port, method, path, body=None, timeout=60):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    with contextlib.closing(connection):
        connection.request(method, path, json.dumps(body) if body else None, {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, response.read()


def wait_until(what, condition, seconds=60):
    end = time.monotonic() + seconds
    while True:
        try:
            if value := condition():
                return value
        except OSError:
            pass
        if time.monotonic() > end:
            raise AssertionError(f"timed out: {what}")
        time.sleep(0.1)


class Process:
    """A program with its log in a file."""

    def __init__(self, name, *command):
        self.log = open(FOLDER / f"{name}.log", "wb")
        self.process = subprocess.Popen([str(part) for part in command], stdout=self.log, stderr=self.log)

    def end(self, how=signal.SIGINT):
        if self.process.poll() is None:
            self.process.send_signal(how)
            try:
                self.process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()


class Replica(Process):
    def __init__(self, name):
        self.name, self.port = name, free_port()
        file = FOLDER / f"{name}.toml"
        file.write_text(CONFIG)
        super().__init__(name, ARGS.binary, "--config", file, "--port", self.port)
        wait_until(f"{name} is ready", lambda: request(self.port, "GET", "/health/ready")[0] == 200)

    def metric(self, name):
        """Sum of a metric over its labels."""
        _, page = request(self.port, "GET", "/metrics")
        values = re.findall(rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", page.decode(), re.MULTILINE)
        if not values:
            raise KeyError(name)
        return sum(map(float, values))


class Fleet:
    def __init__(self):
        self.replicas = [Replica("replica-1"), Replica("replica-2")]
        # The server that has a prefix.
        self.homes = {}
        self.port, metrics = free_port(), free_port()
        smg = shutil.which("smg", path=str(pathlib.Path(sys.executable).parent))
        urls = [f"http://127.0.0.1:{replica.port}" for replica in self.replicas]
        self.router = Process(
            "smg", smg, "launch", "--host", "127.0.0.1", "--port", self.port, "--prometheus-port", metrics,
            "--worker-urls", *urls, "--policy", "cache_aware", "--balance-abs-threshold", 64,
            "--health-check-interval-secs", 2, "--health-failure-threshold", 1,
        )
        wait_until("SMG has two workers", lambda: self.workers() == 2)
        self.model = json.loads(request(self.replicas[0].port, "GET", "/v1/models")[1])["data"][0]["id"]

    def workers(self):
        status, text = request(self.port, "GET", "/workers")
        healthy = [worker for worker in json.loads(text)["workers"] if worker.get("is_healthy", True)]
        return len(healthy) if status == 200 else 0

    def complete(self, prompt, tokens=4, **more):
        body = {"model": self.model, "prompt": prompt, "max_tokens": tokens, "temperature": 0, **more}
        status, text = request(self.port, "POST", "/v1/completions", body)
        assert status == 200, (status, text)
        return json.loads(text)

    def end(self):
        self.router.end(signal.SIGTERM)
        for replica in self.replicas:
            replica.end()


def answers(fleet):
    answer = fleet.complete("Once upon a time", 8)
    own = fleet.replicas[0]
    body = {"model": fleet.model, "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
    direct = json.loads(request(own.port, "POST", "/v1/completions", body)[1])
    assert answer["choices"][0]["text"] == direct["choices"][0]["text"], (answer, direct)
    chat = {"model": fleet.model, "messages": [{"role": "user", "content": "Hello"}], "max_tokens": 4}
    status, text = request(fleet.port, "POST", "/v1/chat/completions", chat)
    assert status == 200, text
    return "completions and chat through SMG equal those of a server alone"


def by_prefix(fleet):
    shares = []
    for name in NAMES:
        before = [replica.metric("exsa_requests_finished_total") for replica in fleet.replicas]
        cached = sum(replica.metric("exsa_cached_tokens_total") for replica in fleet.replicas)
        for i in range(8):
            fleet.complete(prefix(name) + f"Story {i}.")
        after = [replica.metric("exsa_requests_finished_total") for replica in fleet.replicas]
        served = [int(b - a) for a, b in zip(before, after)]
        hits = sum(replica.metric("exsa_cached_tokens_total") for replica in fleet.replicas) - cached
        assert sorted(served) == [0, 8], f"{name}: {served}"
        assert hits > 0, f"{name}: no token was cached"
        shares.append(f"{name} {served[0]}/{served[1]}")
        fleet.homes[name] = fleet.replicas[served.index(8)]
        # SMG puts a prefix that is new to both where it likes.
        if len(shares) >= 4 and len(set(fleet.homes.values())) == 2:
            break
    assert len(set(fleet.homes.values())) == 2, f"one server got all prefixes: {shares}"
    total = [int(replica.metric("vllm:prefix_cache_hits_total")) for replica in fleet.replicas]
    return f"8 requests for each of {len(shares)} prefixes: {', '.join(shares)}; cached prompt tokens {total[0]} and {total[1]}"


def loss(fleet):
    # The story model is so fast that the server is stopped with the first bytes, and killed then.
    name, lost = next(iter(fleet.homes.items()))
    connection = http.client.HTTPConnection("127.0.0.1", fleet.port, timeout=60)
    prompt = prefix(name)
    body = {"model": fleet.model, "prompt": prompt, "max_tokens": 400, "stream": True, "ignore_eos": True, "n": 4}
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200, response.read()
    assert response.read1(64)
    lost.process.send_signal(signal.SIGSTOP)
    lost.end(signal.SIGKILL)
    begun, rest = time.monotonic(), b""
    try:
        while part := response.read1(65536):
            rest += part
    except (http.client.HTTPException, OSError):
        pass
    connection.close()
    assert time.monotonic() - begun < 30, "the cut stream does not end"
    # SMG tells the loss as an event of the stream.
    assert b'"error"' in rest, f"the stream was not cut: {rest[-200:]}"
    left = next(replica for replica in fleet.replicas if replica is not lost)
    before = left.metric("exsa_requests_finished_total")
    prompts = [prefix(name) + "The end." for name in NAMES[:6]]
    for prompt in prompts:
        fleet.complete(prompt)
    served = left.metric("exsa_requests_finished_total") - before
    assert served == len(prompts), served
    return f"{lost.name} was killed: its stream ended with an error, the next {len(prompts)} requests were answered by {left.name}"


def main():
    fleet, failed = Fleet(), 0
    try:
        for check in (answers, by_prefix, loss):
            try:
                print(f"fleet: {check(fleet)} ... ok", flush=True)
            except Exception as error:  # noqa: BLE001
                failed += 1
                print(f"fleet: {check.__name__} ... FAILED: {type(error).__name__}: {error}", flush=True)
    finally:
        fleet.end()
    print(f"fleet checks: {3 - failed} passed, {failed} failed")
    sys.exit(1 if failed else 0)


main()
