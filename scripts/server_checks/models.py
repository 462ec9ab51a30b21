"""Checks of models that are loaded, unloaded, reloaded and switched while clients are served."""

import http.client
import json
import os
import pathlib
import shutil
import subprocess
import threading
import time

from harness import ARGS, Server, check

TINY = pathlib.Path("models/exsa-tiny-q8_0.gguf")
BASE = pathlib.Path("target/test-server/models").resolve()
FOLDER = BASE / "folder"
CONFIG = BASE / "models.toml"
STREAMS = 8
CYCLES = 5 if ARGS.quick else 50
# Errors of requests that docs/lifecycle.md lists, by status and code.
LISTED = {(503, "model_unloaded"), (503, "model_loading"), (503, "model_failed"), (503, "no_active_model")}


def prepare():
    """Two models, a damaged one, and a link to a file outside the folder."""
    shutil.rmtree(BASE, ignore_errors=True)
    (FOLDER / "org").mkdir(parents=True)
    for name in ("a.gguf", "org/b.gguf", "../outside.gguf"):
        shutil.copy(TINY, FOLDER / name)
    (FOLDER / "damaged.gguf").write_bytes(TINY.read_bytes()[:100_000])
    os.symlink(BASE / "outside.gguf", FOLDER / "link.gguf")
    CONFIG.write_text(
        f'[models]\nfolders = ["{FOLDER}"]\ndiscover = true\nactive = "a"\n\n'
        '[models.a]\nload = true\naliases = ["default"]\n\n[models."org/b"]\nload = true\n'
        '\n[metrics]\naliases = ["vllm"]\nload_header = true\n'
    )


SHARED = {}


def serving():
    """One server with two ready models, for all checks of this file but the last."""
    if "server" not in SHARED:
        prepare()
        SHARED["server"] = Server("--config", str(CONFIG))
    return SHARED["server"]


def call(server, path, **body):
    response, text = server.request("POST", f"/v1/models/{path}", body)
    return response.status, json.loads(text)


def events(server, path, body=None):
    """Data of server-sent events, as they come."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    connection.request("POST" if body else "GET", path, json.dumps(body) if body else None)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    for line in response:
        if line.startswith(b"data: "):
            yield json.loads(line[6:])
    connection.close()


def entry(server, name):
    _, text = server.request("GET", "/v1/models/list")
    return next(model for model in json.loads(text)["data"] if model["id"] == name)


@check("openai: two models, by name and by alias; the active one is switched in mid-traffic")
def two_models(_):
    import openai

    server = serving()
    api = openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0)
    assert {model.id for model in api.models.list()} == {"a", "org/b"}
    assert api.models.retrieve("org/b").id == "org/b"
    seen, errors, stop = set(), [], threading.Event()

    def traffic(index):
        while not stop.is_set():
            try:
                # Without a name the request goes to the active model.
                model = ["default", "org/b", ""][index % 3]
                answer = api.completions.create(model=model, prompt="One day", max_tokens=8, seed=index)
                seen.add((model, answer.model))
            except Exception as error:  # noqa: BLE001
                errors.append(error)
                return

    threads = [threading.Thread(target=traffic, args=(index,)) for index in range(6)]
    [thread.start() for thread in threads]
    for turn in range(20):
        status, body = call(server, "active", model=["org/b", "a"][turn % 2])
        assert status == 200 and body["model"] == ["org/b", "a"][turn % 2], body
        time.sleep(0.05)
    stop.set()
    [thread.join() for thread in threads]
    assert not errors, errors[0]
    assert seen == {("default", "a"), ("org/b", "org/b"), ("", "a"), ("", "org/b")}, seen


@check("models: progress of a load as events, its end and the reload's order")
def load_progress(_):
    server = serving()
    assert call(server, "unload", model="org/b")[1]["state"] == "unloaded"
    watched, first = [], threading.Event()

    def watch():
        for event in events(server, "/v1/models/events"):
            watched.append(event)
            first.set()
            if event["type"] == "state" and (event["model"], event["state"]) == ("org/b", "ready"):
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    assert first.wait(30) and watched[0]["type"] == "models" and len(watched[0]["data"]) >= 2
    loaded = list(events(server, "/v1/models/load", {"model": "org/b", "stream": True}))
    shares = [event["progress"]["fraction"] for event in loaded if event["type"] == "progress"]
    assert shares and shares == sorted(shares) and all(0 <= share <= 1 for share in shares), shares
    assert loaded[-1]["type"] == "done" and loaded[-1]["state"] == "ready", loaded[-1]
    watcher.join(30)
    states = [event["state"] for event in watched if event["type"] == "state" and event["model"] == "org/b"]
    assert states == ["loading", "ready"], states
    status, reloaded = call(server, "reload", model="org/b")
    assert (status, reloaded["reload_order"], reloaded["counters"]["loads"]) == (200, "load_first", 3), reloaded


@check("models: names and links that leave the folders are refused, and damaged files")
def traversal(_):
    server = serving()
    for name in ("../outside", "org/../../outside", "/etc/passwd", f"{BASE}/outside", "link", "a\0", "..", "%2e%2e/a"):
        status, body = call(server, "load", model=name)
        assert (status, body["error"]["code"]) == (404, "model_not_found"), (name, status, body)
    status, body = call(server, "load", model="a", options={"path": "/etc/passwd"})
    assert status == 400 and "no such option" in body["error"]["message"], body
    status, body = call(server, "load", model="damaged")
    assert (status, body["error"]["code"]) == (500, "load_failed"), (status, body)
    assert str(BASE) not in json.dumps(body), "the error tells where the folders are"
    # A link that is made in place of a file that was found is refused when it is read.
    late = FOLDER / "late.gguf"
    shutil.copy(TINY, late)
    assert call(server, "load", model="late")[0] == 200
    assert call(server, "unload", model="late")[0] == 200
    late.unlink()
    os.symlink(BASE / "outside.gguf", late)
    status, body = call(server, "load", model="late")
    assert status == 500 and "outside the folders" in body["error"]["message"], body
    response, text = server.request("POST", "/v1/completions", {"model": "a", "prompt": "One day", "max_tokens": 2})
    assert response.status == 200, text


@check("models: a failed reload leaves the old instance serving, a cancelled load leaves no trace")
def failed_reload(_):
    server = serving()
    path = FOLDER / "org/b.gguf"
    whole = path.read_bytes()
    damaged = FOLDER / "org/b.new"
    damaged.write_bytes(whole[:100_000])
    damaged.rename(path)
    status, body = call(server, "reload", model="org/b")
    assert (status, body["error"]["code"]) == (500, "load_failed"), body
    assert entry(server, "org/b")["state"] == "ready"
    response, text = server.request("POST", "/v1/completions", {"model": "org/b", "prompt": "One day", "max_tokens": 2})
    assert response.status == 200, text
    damaged.write_bytes(whole)
    damaged.rename(path)
    assert call(server, "reload", model="org/b")[0] == 200
    assert call(server, "cancel", model="org/b")[1]["cancelled"] is False


@check("ollama: keep_alive puts a model to sleep, a request without prompt loads it")
def keep_alive(_):
    import ollama

    server = serving()
    api = ollama.Client(host=f"http://127.0.0.1:{server.port}")
    assert {"a:latest", "org/b:latest"} <= {model.model for model in api.list().models}
    api.generate(model="org/b", prompt="One day", options={"num_predict": 4}, keep_alive=0)
    end = time.monotonic() + 10
    while entry(server, "org/b")["state"] != "sleeping":
        assert time.monotonic() < end, entry(server, "org/b")
        time.sleep(0.02)
    assert api.generate(model="org/b").done_reason == "load"
    assert entry(server, "org/b")["state"] == "ready"
    api.generate(model="org/b", prompt="One day", options={"num_predict": 4}, keep_alive="10m")
    expires = {model.model: model.expires_at for model in api.ps().models}["org/b:latest"]
    assert 500 < expires.timestamp() - time.time() < 601, expires
    try:
        api.pull("org/b")
        raise AssertionError("a pull was accepted")
    except ollama.ResponseError as error:
        assert error.status_code == 403, error


@check("models: mode and fairness change at run time")
def mode(_):
    server = serving()
    for name in ("latency", "throughput", "balanced"):
        status, body = call(server, "mode", model="a", mode=name, ageing="3s")
        assert (status, body["settings"]["mode"], body["settings"]["ageing_seconds"]) == (200, name, 3.0), body
        response, text = server.request("POST", "/v1/completions", {"model": "a", "prompt": "One day", "max_tokens": 4})
        assert response.status == 200, text


@check("metrics: promtool accepts both formats")
def promtool(_):
    server = serving()
    tool = os.environ.get("PROMTOOL") or shutil.which("promtool")
    response, text = server.request("GET", "/metrics")
    assert b'vllm:num_requests_running{model_name="a",engine="0"}' in text
    response, opened = server.request("GET", "/metrics", headers={"Accept": "application/openmetrics-text"})
    assert response.headers["Content-Type"].startswith("application/openmetrics-text") and opened.endswith(b"# EOF\n")
    response, _ = server.request(
        "POST",
        "/v1/completions",
        {"model": "a", "prompt": "One day", "max_tokens": 2},
        {"endpoint-load-metrics-format": "JSON"},
    )
    load = response.headers["endpoint-load-metrics"]
    assert load.startswith("JSON ") and "kv_cache_usage_perc" in json.loads(load[5:])["named_metrics"], load
    if tool is None:
        print("  (promtool is not installed: the Debian package prometheus has it)")
        return
    for page in (text, opened):
        result = subprocess.run([tool, "check", "metrics"], input=page, capture_output=True)
        # Status 3 is advice about names, which are vLLM's in part.
        assert result.returncode in (0, 3), result.stderr.decode()
        advice = [line for line in result.stderr.decode().splitlines() if line.startswith("exsa_")]
        # OpenMetrics names the counters' families without "_total", which this tool takes for other metrics.
        assert not advice or page is opened, advice


def resident(pid):
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@check("models: cycles of load, unload and reload under 8 streams; memory comes back")
def cycles(_):
    if "server" in SHARED:
        assert SHARED.pop("server").stop() == 0
    prepare()
    # Engines and loads have threads of their own, for each of which glibc may keep an arena of freed memory.
    os.environ["MALLOC_ARENA_MAX"] = "2"
    try:
        server = Server("--config", str(CONFIG))
    finally:
        del os.environ["MALLOC_ARENA_MAX"]
    stop, go, errors, served, refused = threading.Event(), threading.Event(), [], [0] * STREAMS, [0] * STREAMS
    go.set()

    def traffic(index):
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        body = dict(model=["a", "org/b"][index % 2], prompt="One day", max_tokens=24, stream=True, seed=index)
        try:
            while not stop.is_set():
                go.wait()
                connection.request("POST", "/v1/completions", json.dumps(body))
                response = connection.getresponse()
                text = response.read().decode()
                if response.status != 200:
                    error = json.loads(text)["error"]
                    assert (response.status, error["code"]) in LISTED, (response.status, text)
                    refused[index] += 1
                    time.sleep(0.01)
                    continue
                assert text.endswith("data: [DONE]\n\n") and '"error"' not in text, text[-500:]
                served[index] += 1
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    def cycle():
        for path in ("unload", "load", "reload"):
            status, body = call(server, path, model="org/b")
            assert status == 200, (path, body)

    threads = [threading.Thread(target=traffic, args=(index,)) for index in range(STREAMS)]
    [thread.start() for thread in threads]
    memory = []
    try:
        # The first cycles fill caches and the allocator's arenas.
        for turn in range(3 + CYCLES):
            cycle()
            assert not errors, errors[0]
            # Memory of running streams is none of the models'.
            go.clear()
            server.wait_for("exsa_running", 0, seconds=60)
            memory.append(resident(server.process.pid))
            go.set()
    finally:
        stop.set()
        go.set()
        [thread.join() for thread in threads]
    assert not errors, errors[0]
    assert all(served), served
    assert all(refused[1::2]), "an unload refused no request"
    assert not any(refused[0::2]), "requests to the model that stayed were refused"
    settled = memory[3:]
    part = max(1, len(settled) // 5)
    start, last = (sorted(values)[len(values) // 2] for values in (settled[:part], settled[-part:]))
    figures = f"{start >> 10} KiB at first, {last >> 10} KiB at last"
    print(f"  ({sum(served)} streams, {sum(refused)} refused; {figures})")
    assert last - start <= max(0.02 * start, 8 << 20), figures
    assert server.stop() == 0
