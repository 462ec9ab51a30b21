"""Checks of quotas and the audit log."""

import importlib
import json
import os
import pathlib
import random
import shutil
import signal
import subprocess
import tempfile
import threading
import time

from harness import ARGS, Server, check

DAY_LIMIT = 10_000_000


class Books:
    """A server with keys, quotas and an audit log, over folders that outlive it."""

    def __init__(self, quota, audit="fsync = 'every'"):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="exsa-books-"))
        self.data, self.log = self.folder / "data", self.folder / "log"
        self.checkpoints, self.key = self.folder / "checkpoints", self.folder / "audit.key"
        self.command("audit", "keygen", str(self.key))
        self.config = self.folder / "exsa.toml"
        self.config.write_text(
            f"""[access]
enabled = true
data = '{self.data}'
[quota.default]
{quota}
[audit]
folder = '{self.log}'
rotate_bytes = 20000
{audit}
[audit.checkpoint]
lines = 7
key = '{self.key}'
file = '{self.checkpoints}'
"""
        )
        self.server = None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.server is not None:
            self.server.process.kill()
            self.server.process.wait()
        shutil.rmtree(self.folder)

    def command(self, *words, status=0):
        done = subprocess.run([ARGS.binary, *words], capture_output=True, text=True, timeout=60)
        assert done.returncode == status, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout.strip()

    def start(self):
        self.server = Server("--config", str(self.config))
        return self.server

    def kill(self):
        self.server.process.send_signal(signal.SIGKILL)
        self.server.process.wait()
        self.server = None

    def stop(self):
        assert self.server.stop() == 0
        self.server = None

    def new_key(self, *words):
        return self.command("key", "new", "--name", "check", "--data", str(self.data), *words)

    def verify(self, status=0, signed=True):
        key = ["--public-key", f"{self.key}.pub"] if signed else []
        words = ["audit", "verify", "--checkpoints", str(self.checkpoints), *key, str(self.log)]
        return self.command(*words, status=status)

    def lines(self):
        files = sorted(self.log.glob("audit-*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


def complete(server, key, **fields):
    body = dict({"prompt": "One day", "max_tokens": 3, "ignore_eos": True}, **fields)
    return server.request("POST", "/v1/completions", body, bearer(key))


class Acknowledged:
    """Everything that a server has acknowledged over its lives."""

    def __init__(self):
        self.lock = threading.Lock()
        self.requests, self.keys, self.tokens, self.errors = [], [], 0, []

    def work(self, server, key):
        try:
            while True:
                response, text = complete(server, key)
                assert response.status == 200, text
                used = json.loads(text)["usage"]["completion_tokens"]
                with self.lock:
                    self.requests.append(response.getheader("x-request-id"))
                    self.tokens += used
        except (OSError, http_errors()):
            pass
        except Exception as error:  # noqa: BLE001
            self.errors.append(error)

    def make_keys(self, server, key):
        try:
            while True:
                response, text = server.request("POST", "/v1/keys", {"name": "made"}, bearer(key))
                assert response.status in (200, 201), (response.status, text)
                with self.lock:
                    self.keys.append(json.loads(text)["id"])
        except (OSError, http_errors()):
            pass
        except Exception as error:  # noqa: BLE001
            self.errors.append(error)


def http_errors():
    return importlib.import_module("http.client").HTTPException


def remaining(server, key):
    response, _ = server.request("GET", "/v1/models", headers=bearer(key))
    return int(response.getheader("x-ratelimit-remaining-tokens"))


@check("books: kill -9 loses no acknowledged line or key, the chain verifies, quotas give nothing back")
def books_kills(_):
    kills, day = 20 if ARGS.quick else 200, time.time() // 86400
    with Books(f"output_tokens_per_day = {DAY_LIMIT}") as books:
        key, admin = books.new_key(), books.new_key("--scope", "keys", "--scope", "infer")
        acknowledged = Acknowledged()
        for _ in range(kills):
            server = books.start()
            left = remaining(server, key)
            if time.time() // 86400 == day:
                assert left <= DAY_LIMIT - acknowledged.tokens, (left, acknowledged.tokens)
            jobs = [(acknowledged.work, key), (acknowledged.work, key), (acknowledged.make_keys, admin)]
            threads = [threading.Thread(target=job, args=(server, of)) for job, of in jobs]
            for thread in threads:
                thread.start()
            time.sleep(random.uniform(0.02, 0.6))
            books.kill()
            for thread in threads:
                thread.join(60)
            assert not acknowledged.errors, acknowledged.errors[0]
            # A life may end before its log has any checkpoint.
            books.verify(signed=False)
        lines = books.lines()
        recorded = {line.get("request") for line in lines if line["act"] == "request"}
        lost = [request for request in acknowledged.requests if request not in recorded]
        assert not lost and len(acknowledged.requests) >= kills, (len(lost), len(acknowledged.requests))
        made = {line.get("detail") for line in lines if line["act"] == "key_created"}
        lost = [identity for identity in acknowledged.keys if f"key {identity}" not in made]
        assert not lost and len(acknowledged.keys) >= kills, (len(lost), len(acknowledged.keys))
        server = books.start()
        _, listed = server.request("GET", "/v1/keys", headers=bearer(admin))
        assert all(identity in listed.decode() for identity in acknowledged.keys)
        books.stop()
        books.verify()


@check("books: altered, missing and truncated lines are found")
def books_tampered(_):
    with Books("streams = 8") as books:
        key = books.new_key()
        server = books.start()
        for _ in range(30):
            assert complete(server, key, max_tokens=1)[0].status == 200
        books.stop()
        assert " 0 findings" in books.verify()
        file = sorted(books.log.glob("audit-*.jsonl"))[-1]
        whole = file.read_text()
        lines = whole.splitlines(keepends=True)
        file.write_text("".join(lines[:1] + [lines[1].replace('"outcome":"length"', '"outcome":"error"')] + lines[2:]))
        assert "was altered" in books.verify(status=1)
        file.write_text("".join(lines[:1] + lines[2:]))
        assert "are missing" in books.verify(status=1)
        file.write_text("".join(lines[:-2]))
        assert "the log was truncated" in books.verify(status=1)
        file.write_text(whole)
        books.verify()
        # A crash in the middle of a line is repaired, and the repair is recorded.
        file.write_text(whole + '{"seq":')
        books.start()
        books.stop()
        assert " 0 findings" in books.verify()
        assert any(line["act"] == "repaired" for line in books.lines())


@check("openai: RateLimitError of a quota, and its retry after the time that the server tells")
def openai_quota(_):
    openai = importlib.import_module("openai")
    with Books("requests_per_minute = 60") as books:
        key = books.new_key()
        server = books.start()
        url = f"http://127.0.0.1:{server.port}/v1"
        impatient = openai.OpenAI(base_url=url, api_key=key, max_retries=0)
        ask = {"model": "", "prompt": "One day", "max_tokens": 1}
        try:
            for _ in range(120):
                impatient.completions.create(**ask)
            raise AssertionError("no limit")
        except openai.RateLimitError as error:
            assert error.code == "rate_limit_exceeded", error
            assert int(error.response.headers["retry-after"]) == 1
            assert error.response.headers["x-ratelimit-remaining-requests"] == "0"
            assert "limited to 60 requests per minute" in error.message, error.message
        patient = openai.OpenAI(base_url=url, api_key=key, max_retries=2)
        begun = time.monotonic()
        # Some requests in a row find the bucket empty: each succeeds after a wait.
        for _ in range(3):
            patient.completions.create(**ask)
        assert time.monotonic() - begun > 1
        books.stop()
        refused = [line for line in books.lines() if line["act"] == "quota_refused"]
        assert refused and all(line["outcome"] == "rate_limit_exceeded" for line in refused)
        books.verify()
        assert os.path.exists(books.checkpoints)
