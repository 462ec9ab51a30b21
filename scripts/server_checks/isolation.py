"""Checks of models that worker processes or remote engines serve: they are killed while streams run."""

import http.client
import json
import os
import pathlib
import signal
import socket
import subprocess
import threading
import time

from harness import ARGS, Server, check

TINY = pathlib.Path("models/exsa-tiny-q8_0.gguf").resolve()
BASE = pathlib.Path("target/test-server/isolation").resolve()
BODIES = [
    {"prompt": "One day", "max_tokens": 400, "temperature": 0, "ignore_eos": True},
    {"prompt": "One day", "max_tokens": 400, "seed": 7, "ignore_eos": True},
    {"prompt": "Tom had a", "max_tokens": 400, "seed": 8, "repetition_penalty": 1.1, "ignore_eos": True},
    {"prompt": "The cat", "max_tokens": 400, "seed": 9, "frequency_penalty": 0.3, "ignore_eos": True},
]


def config(name, text):
    BASE.mkdir(parents=True, exist_ok=True)
    path = BASE / name
    path.write_text(text)
    return str(path)


def listed(server, model):
    _, text = server.request("GET", "/v1/models/list")
    return next(entry for entry in json.loads(text)["data"] if entry["id"] == model)


def stream(server, body, begun=None):
    """The text of a streamed completion, and its last chunk."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST", "/v1/completions", json.dumps({**body, "stream": True}))
    response = connection.getresponse()
    assert response.status == 200, response.read()
    text, last = "", None
    for line in response:
        if not line.startswith(b"data: ") or line.startswith(b"data: [DONE]"):
            continue
        last = json.loads(line[6:])
        assert "error" not in last, last
        text += last["choices"][0]["text"] if last["choices"] else ""
        if begun is not None and len(text) > 200:
            begun.release()
            begun = None
    connection.close()
    return text, last


def streams(server, fault=None):
    """All texts; `fault` is called once every stream has begun."""
    begun = [threading.Semaphore(0) for _ in BODIES]
    texts, errors = [None] * len(BODIES), []

    def run(index):
        try:
            texts[index] = stream(server, BODIES[index], begun[index])[0]
        except Exception as error:  # noqa: BLE001
            errors.append(error)
            begun[index].release()

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(BODIES))]
    [thread.start() for thread in threads]
    if fault:
        [each.acquire(timeout=60) for each in begun]
        fault()
    [thread.join() for thread in threads]
    assert not errors, errors[0]
    return texts


def children(pid):
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True).stdout
    return [int(line) for line in found.split()]


def runs(pid):
    """Whether the process is there; one that ended may wait for its parent to take note."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


@check("workers: killed one after the other while streams run; texts equal those of undisturbed streams")
def workers_killed(_):
    path = config("workers.toml", f'[models.story]\npath = "{TINY}"\nworkers = 2\nworker_memory = "1 GiB"\n')
    server = Server("--config", path)
    assert len(children(server.process.pid)) == 2
    assert [member["state"] for member in listed(server, "story")["members"]] == ["ready", "ready"]
    truth = streams(server)
    assert all(len(text) > 300 for text in truth), truth
    # The pause before a restart doubles with each: 3 s at the last turn.
    for turn in range(3 if ARGS.quick else 12):
        victims = children(server.process.pid)
        victim = victims[turn % len(victims)]
        texts = streams(server, lambda: os.kill(victim, signal.SIGKILL))
        assert texts == truth, (texts, truth)
        end = time.monotonic() + 20
        while not all(member["ready"] for member in listed(server, "story")["members"]):
            assert time.monotonic() < end, listed(server, "story")
            time.sleep(0.02)
    assert server.metric("exsa_member_restarts_total") >= 3
    # A chat with a tool, on a new worker.
    where = {"type": "object", "properties": {"at": {"enum": ["sky", "sea"]}}, "required": ["at"], "additionalProperties": False}
    tool = {"type": "function", "function": {"name": "look", "parameters": where}}
    body = {"messages": [{"role": "user", "content": "Hi"}], "tools": [tool], "tool_choice": "required", "max_tokens": 64}
    response, text = server.request("POST", "/v1/chat/completions", body)
    assert response.status == 200 and json.loads(text)["choices"][0]["message"]["tool_calls"], text
    left = children(server.process.pid)
    server.process.kill()
    server.process.wait()
    time.sleep(1)
    alive = [pid for pid in left if runs(pid)]
    assert not alive, f"workers outlive their server: {alive}"


@check("workers: unloading ends the processes, loading starts new ones")
def workers_unloaded(_):
    path = config("unload.toml", f'[models.story]\npath = "{TINY}"\nworkers = 2\n')
    server = Server("--config", path)
    before = children(server.process.pid)
    response, text = server.request("POST", "/v1/models/unload", {"model": "story"})
    assert response.status == 200, text
    end = time.monotonic() + 10
    while children(server.process.pid):
        assert time.monotonic() < end, "workers run on"
        time.sleep(0.02)
    response, text = server.request("POST", "/v1/models/load", {"model": "story"})
    assert response.status == 200, text
    assert len(children(server.process.pid)) == 2 and not set(before) & set(children(server.process.pid))
    assert stream(server, BODIES[0])[0]
    assert server.stop() == 0


@check("remote: a server before two others; one is killed while streams run, and comes back")
def remotes_killed(_):
    upstreams = [Server("--config", config("up.toml", f'[models.up]\npath = "{TINY}"\n')) for _ in range(2)]
    tables = "".join(
        f'[[models.far.remote]]\nurl = "http://127.0.0.1:{up.port}"\nmodel = "up"\ntokenizer = "{TINY}"\n'
        for up in upstreams
    )
    server = Server("--config", config("far.toml", tables))
    assert len(listed(server, "far")["members"]) == 2
    truth = streams(server)
    assert all(len(text) > 300 for text in truth), truth
    # The same as without a server between.
    assert truth[0] == stream(upstreams[0], BODIES[0])[0]
    assert truth[1] == stream(upstreams[0], BODIES[1])[0]
    texts = streams(server, upstreams[0].process.kill)
    assert texts == truth, (texts, truth)
    response, text = server.request("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 8})
    assert response.status == 200 and json.loads(text)["usage"]["completion_tokens"] > 0, text
    upstreams[1].process.kill()
    upstreams[1].process.wait()
    begun = time.monotonic()
    response, text = server.request("POST", "/v1/completions", {**BODIES[0], "timeout": 5})
    assert response.status in (408, 503), (response.status, text)
    assert time.monotonic() - begun < 15
    assert server.stop() == 0


@check("remote: an engine that starts after the server joins; settings are checked")
def remote_joins(_):
    first = Server("--config", config("up.toml", f'[models.up]\npath = "{TINY}"\n'))
    # Held, but not listened on, until the engine starts.
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    place.bind(("127.0.0.1", 0))
    late_port = place.getsockname()[1]
    tables = "".join(
        f'[[models.far.remote]]\nurl = "http://127.0.0.1:{port}"\nmodel = "up"\n' for port in (first.port, late_port)
    )
    server = Server("--config", config("join.toml", tables))
    states = {member["name"]: member["state"] for member in listed(server, "far")["members"]}
    assert sorted(states.values()) == ["not reached yet", "ready"], states
    place.close()
    late = Server("--config", str(BASE / "up.toml"), port=late_port)
    end = time.monotonic() + 30
    while not all(member["ready"] for member in listed(server, "far")["members"]):
        assert time.monotonic() < end, listed(server, "far")
        time.sleep(0.1)
    # Without a tokenizer here, the text of the engines is passed on.
    assert len(stream(server, {"prompt": "One day", "max_tokens": 40, "seed": 1})[0]) > 40
    for each in (server, first, late):
        assert each.stop() == 0
    for text, words in [
        ('[[models.far.remote]]\nurl = "ftp://x"\n', "http://"),
        ('[[models.far.remote]]\n', "url"),
        ('[[models.far.remote]]\nurl = "http://x"\ndialect = "grpc"\n', "llama-server"),
        (f'[models.far]\nworkers = 2\n[[models.far.remote]]\nurl = "http://x"\n', "workers"),
        ("[models.far]\nbuiltin = true\nworkers = 2\n", "built-in"),
        (f'[models.far]\npath = "{TINY}"\nworkers = 1000000\n', "limit of 256"),
        (f'[models.far]\npath = "{TINY}"\nworker_memory = "1 GiB"\n', "workers is not set"),
    ]:
        command = [ARGS.binary, "--config", config("bad.toml", text), "--check-config"]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 1 and words in done.stderr, (text, done.stderr)
