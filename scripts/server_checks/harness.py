"""The server under test, and the list of checks."""

import argparse
import http.client
import json
import re
import signal
import socket
import subprocess
import threading
import time

PARSER = argparse.ArgumentParser()
PARSER.add_argument("--binary", required=True)
PARSER.add_argument("--quick", action="store_true")
ARGS = PARSER.parse_args()

CHECKS = []
# Checks whose names begin with one of these need that Python package.
LIBRARIES = ["openai", "anthropic", "ollama", "langchain_openai", "litellm", "jsonschema", "schemathesis"]


def check(name, quick=True):
    def add(function):
        CHECKS.append((name, quick, function))
        return function

    return add


class Server:
    """The binary on a free port, or a given one."""

    def __init__(self, *flags, ready=True, port=0):
        self.log = open("target/test-server/server.log", "ab")
        command = [ARGS.binary, "--port", str(port), *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.port = None
        for line in self.process.stderr:
            self.log.write(line.encode())
            if found := re.search(r'listening on https?://[^"\s]*:(\d+)', line):
                self.port = int(found[1])
                break
        if self.port is None:
            raise RuntimeError("the server did not start")
        threading.Thread(target=self.drain_log, daemon=True).start()
        if ready:
            self.wait_ready()

    def wait_ready(self, seconds=60):
        end = time.monotonic() + seconds
        while self.request("GET", "/health/ready")[0].status != 200:
            if time.monotonic() > end:
                raise RuntimeError("the server is not ready")
            time.sleep(0.02)

    def drain_log(self):
        for line in self.process.stderr:
            self.log.write(line.encode())
            self.log.flush()

    def request(self, method, path, body=None, headers=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        payload = body if isinstance(body, (bytes, type(None))) else json.dumps(body)
        connection.request(method, path, payload, headers or {})
        response = connection.getresponse()
        text = response.read()
        connection.close()
        return response, text

    def metric(self, name):
        """Sum of a metric's values over all labels."""
        _, page = self.request("GET", "/metrics")
        lines = page.decode().splitlines()
        values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + " ", name + "{"))]
        if not values:
            raise KeyError(name)
        return sum(values)

    def wait_for(self, name, value, seconds=10):
        end = time.monotonic() + seconds
        while self.metric(name) != value:
            if time.monotonic() > end:
                raise AssertionError(f"{name} is {self.metric(name)}, not {value}")
            time.sleep(0.02)

    def stop(self):
        # An interrupt skips the delay of the drain.
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(timeout=60)


CHAT = {"messages": [{"role": "user", "content": "Tell me a story about a cat."}], "seed": 1}


def open_stream(server, body):
    """Sends a request and returns its socket once the first event is here."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    payload = json.dumps(body).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(payload)}\r\n\r\n"
    connection.sendall(head.encode() + payload)
    received = b""
    while b"data: " not in received:
        part = connection.recv(4096)
        assert part, received
        received += part
    return connection


ENDLESS = {"prompt": "One day", "max_tokens": 480, "stream": True, "seed": 1, "logit_bias": {}, "ignore_eos": True}
