"""Servers under test, other programs beside them, and the list of checks."""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import shutil
import socket
import subprocess
import threading
import time

PARSER = argparse.ArgumentParser()
PARSER.add_argument("--binary", required=True)
PARSER.add_argument("--quick", action="store_true")
ARGS = PARSER.parse_args()

DEPLOY = pathlib.Path("deploy")
FOLDER = pathlib.Path("target/test-deploy").absolute()
CHECKS = []


class Skipped(Exception):
    """The check cannot be made here."""


def check(name):
    def add(function):
        CHECKS.append((name, function))
        return function

    return add


def program(name):
    """The path of an installed program."""
    found = shutil.which(name, path=os.environ["PATH"] + ":/usr/sbin:/sbin")
    if found is None:
        raise Skipped(f"{name} is not there and could not be installed")
    return found


def run(*command, **options):
    """Runs a program to its end and returns its output; fails with the output otherwise."""
    command = [str(part) for part in command]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120, **options)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(command)}: status {done.returncode}: {done.stdout.strip()}")
    return done.stdout


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_until(condition, what, seconds=20):
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.1)


def answers(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


@contextlib.contextmanager
def running(name, *command):
    """Another program, until the end of the block; its output goes to a log."""
    with open(FOLDER / f"{name}.log", "ab") as log:
        process = subprocess.Popen([str(part) for part in command], stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Server:
    """The binary on a free port."""

    def __init__(self, *flags, port=None):
        self.port = port or free_port()
        command = [ARGS.binary, "--port", str(self.port), *flags]
        self.log = open(FOLDER / "server.log", "ab")
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE)
        self.ready = threading.Event()
        threading.Thread(target=self.read_log, daemon=True).start()
        if not self.ready.wait(60):
            self.process.kill()
            raise RuntimeError("the server did not start")
        # The server listens before its models are loaded.
        wait_until(lambda: self.request("GET", "/health/ready")[0] == 200, "ready", 60)

    def read_log(self):
        for line in self.process.stderr:
            self.log.write(line)
            self.log.flush()
            if b"listening on" in line:
                self.ready.set()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(timeout=60)

    def request(self, method, path, body=None, key=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        connection.request(method, path, json.dumps(body) if body is not None else None, headers)
        response = connection.getresponse()
        text = response.read().decode()
        connection.close()
        return response.status, text


def completion(tokens, stream=False):
    return {"prompt": "One day", "max_tokens": tokens, "stream": stream, "seed": 1, "ignore_eos": True}
