"""Clients that send requests through a proxy without a pause, and compare each text with the expected one."""

import dataclasses
import http.client
import json
import ssl
import threading
import time

from harness import FOLDER
from proxies import NAME

PROMPTS = ["One day", "The dog", "Tim and Sam", "A little bird", "Once upon a time"]
TOKENS = {True: 120, False: 24}


def body(prompt, stream):
    return {
        "prompt": prompt, "max_tokens": TOKENS[stream], "stream": stream, "temperature": 0, "ignore_eos": True,
    }  # fmt: skip


def truths(server, key):
    """The texts that a server alone gives, by prompt and kind of request."""
    texts = {}
    for prompt in PROMPTS:
        for stream in TOKENS:
            status, text = server.request("POST", "/v1/completions", {**body(prompt, stream), "stream": False}, key=key)
            assert status == 200, text
            texts[prompt, stream] = json.loads(text)["choices"][0]["text"]
    return texts


@dataclasses.dataclass
class Outcome:
    """One request. Without a problem its text was whole and the expected one."""

    stream: bool
    begun: float
    ended: float = 0.0
    server: str = ""
    problem: str = ""


class Client(threading.Thread):
    """Sends requests over one connection, which is opened anew where the proxy has announced its end."""

    def __init__(self, load, key, stream, first):
        super().__init__(daemon=True)
        self.load, self.key, self.stream, self.next = load, key, stream, first
        self.connection = None

    def run(self):
        while not self.load.done.is_set():
            prompt = PROMPTS[self.next % len(PROMPTS)]
            self.next += 1
            outcome = Outcome(self.stream, time.monotonic())
            self.load.running[self] = outcome
            try:
                text = self.send(prompt, outcome)
                if text != self.load.truths[prompt, self.stream]:
                    outcome.problem = f"another text: {text!r}"
            except Exception as error:  # noqa: BLE001
                outcome.problem = f"{type(error).__name__}: {error}"
                self.close()
            outcome.ended = time.monotonic()
            self.load.outcomes.append(outcome)

    def close(self):
        if self.connection is not None:
            self.connection.close()
        self.connection = None

    def send(self, prompt, outcome):
        if self.connection is None:
            self.connection = http.client.HTTPSConnection(
                "127.0.0.1", self.load.port, timeout=120, context=self.load.context
            )
        headers = {"Host": NAME, "Content-Type": "application/json", "Authorization": f"Bearer {self.key}"}
        self.connection.request("POST", "/v1/completions", json.dumps(body(prompt, self.stream)), headers)
        response = self.connection.getresponse()
        # After another try, nginx names all servers.
        outcome.server = response.headers.get("x-served-by", "").split(", ")[-1]
        if response.status != 200:
            raise AssertionError(f"status {response.status}: {response.read()!r}")
        text = self.read_stream(response) if self.stream else json.load(response)["choices"][0]["text"]
        if response.will_close:
            self.close()
        return text

    def read_stream(self, response):
        text, whole = "", False
        while line := response.readline():
            if line.startswith(b"data: [DONE]"):
                whole = True
            elif line.startswith(b"data: "):
                event = json.loads(line[6:])
                assert "error" not in event, event
                text += event["choices"][0]["text"]
        assert whole, "the stream is cut"
        return text


class Load:
    """Clients until the end of the block."""

    def __init__(self, port, keys, texts, streams=4, others=3):
        self.port, self.truths = port, texts
        self.done, self.outcomes, self.running = threading.Event(), [], {}
        self.context = ssl.create_default_context(cafile=FOLDER / "cert.pem")
        self.context.check_hostname = False
        kinds = [True] * streams + [False] * others
        self.clients = [Client(self, keys[i % len(keys)], stream, i) for i, stream in enumerate(kinds)]

    def __enter__(self):
        for client in self.clients:
            client.start()
        return self

    def __exit__(self, *_):
        self.done.set()
        for client in self.clients:
            client.join(150)

    def failed(self):
        return [outcome for outcome in self.outcomes if outcome.problem]

    def check(self):
        """Says how many requests there were; fails if one has failed."""
        failed, count = self.failed(), len(self.outcomes)
        assert not failed, f"{len(failed)} of {count} requests failed: {failed[:3]}"
        streams = sum(outcome.stream for outcome in self.outcomes)
        assert streams > 0 and count > streams
        return f"{streams} streams and {count - streams} whole answers, none failed"
