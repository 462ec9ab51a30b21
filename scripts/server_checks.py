"""Checks of a running exsa-server, one line each; called by scripts/test-server."""

import argparse
import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time

PARSER = argparse.ArgumentParser()
PARSER.add_argument("--binary", required=True)
PARSER.add_argument("--quick", action="store_true")
ARGS = PARSER.parse_args()

CHECKS = []
# Checks whose names begin with one of these need that Python package.
LIBRARIES = ["openai", "anthropic", "ollama"]


def check(name, quick=True):
    def add(function):
        CHECKS.append((name, quick, function))
        return function

    return add


class Server:
    """The binary on a free port."""

    def __init__(self, *flags):
        self.log = open("target/test-server/server.log", "ab")
        command = [ARGS.binary, "--port", "0", *flags]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        self.port = None
        for line in self.process.stderr:
            self.log.write(line.encode())
            if "listening on" in line:
                self.port = int(line.rsplit(":", 1)[1])
                break
        if self.port is None:
            raise RuntimeError("the server did not start")
        threading.Thread(target=self.drain_log, daemon=True).start()

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
        _, page = self.request("GET", "/metrics")
        for line in page.decode().splitlines():
            if line.startswith(name + " "):
                return float(line.split()[1])
        raise KeyError(name)

    def wait_for(self, name, value, seconds=10):
        end = time.monotonic() + seconds
        while self.metric(name) != value:
            if time.monotonic() > end:
                raise AssertionError(f"{name} is {self.metric(name)}, not {value}")
            time.sleep(0.02)

    def stop(self):
        self.process.terminate()
        return self.process.wait(timeout=60)


CHAT = {"messages": [{"role": "user", "content": "Tell me a story about a cat."}], "seed": 1}


def client(server):
    import openai

    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0)


@check("openai: chat, whole and streamed, agree")
def openai_chat(server):
    api = client(server)
    model = api.models.list().data[0].id
    arguments = dict(model=model, messages=CHAT["messages"], seed=1, max_tokens=40)
    whole = api.chat.completions.create(**arguments)
    options = {"include_usage": True}
    chunks = list(api.chat.completions.create(**arguments, stream=True, stream_options=options))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content and len(text) > 20, text
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 40
    assert whole.choices[0].finish_reason == "length"


@check("openai: completions with a list of prompts and log-probabilities")
def openai_completions(server):
    api = client(server)
    model = api.models.list().data[0].id
    answer = api.completions.create(model=model, prompt=["One day", "The dog"], max_tokens=5, logprobs=2, seed=3)
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert len(choice.logprobs.tokens) == 5 and "".join(choice.logprobs.tokens) == choice.text
        assert all(len(top) == 2 for top in choice.logprobs.top_logprobs)


@check("openai: log-probabilities of chat tokens")
def openai_chat_logprobs(server):
    api = client(server)
    model = api.models.list().data[0].id
    answer = api.chat.completions.create(
        model=model, messages=CHAT["messages"], max_tokens=4, logprobs=True, top_logprobs=3, temperature=0
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == 4
    for token in content:
        assert token.logprob == token.top_logprobs[0].logprob, "greedy takes the most probable token"


@check("openai: several answers to one prompt, whole and streamed")
def openai_several_answers(server):
    api = client(server)
    model = api.models.list().data[0].id
    arguments = dict(model=model, messages=CHAT["messages"], seed=7, max_tokens=25, n=3)
    whole = api.chat.completions.create(**arguments)
    texts = [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 3 and whole.usage.completion_tokens == 75, texts
    streamed = {0: "", 1: "", 2: ""}
    for chunk in api.chat.completions.create(**arguments, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert list(streamed.values()) == texts
    best = api.completions.create(model=model, prompt="One day", seed=7, max_tokens=10, n=1, best_of=4)
    assert len(best.choices) == 1 and best.usage.completion_tokens == 40


@check("openai: an answer by a JSON schema")
def openai_schema(server):
    api = client(server)
    model = api.models.list().data[0].id
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "legs": {"enum": [2, 4]}},
        "required": ["name", "legs"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "animal", "schema": schema, "strict": True}}
    for seed in range(5):
        answer = api.chat.completions.create(
            model=model, messages=CHAT["messages"], response_format=form, seed=seed, max_tokens=60
        )
        value = json.loads(answer.choices[0].message.content)
        assert set(value) == {"name", "legs"} and value["legs"] in (2, 4) and len(value["name"]) <= 12, value


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 10}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


@check("openai: a forced tool call, whole and streamed, agree")
def openai_tools(server):
    api = client(server)
    model = api.models.list().data[0].id
    arguments = dict(
        model=model, messages=CHAT["messages"], tools=[TOOL], tool_choice="required", seed=2, max_tokens=80,
        parallel_tool_calls=False,
    )
    whole = api.chat.completions.create(**arguments).choices[0]
    assert whole.finish_reason == "tool_calls", whole
    call = whole.message.tool_calls[0]
    values = json.loads(call.function.arguments)
    assert call.function.name == "get_weather" and values["unit"] in ("celsius", "fahrenheit"), call
    name, text, reason = "", "", None
    for chunk in api.chat.completions.create(**arguments, stream=True):
        choice = chunk.choices[0]
        reason = choice.finish_reason or reason
        for delta in choice.delta.tool_calls or []:
            name += delta.function.name or ""
            text += delta.function.arguments or ""
    assert (name, text, reason) == (call.function.name, call.function.arguments, "tool_calls")


@check("anthropic: a forced tool call")
def anthropic_tools(server):
    import anthropic

    api = anthropic.Anthropic(base_url=f"http://127.0.0.1:{server.port}", api_key="none", max_retries=0)
    model = json.loads(server.request("GET", "/v1/models")[1])["data"][0]["id"]
    function = TOOL["function"]
    tool = {"name": function["name"], "description": function["description"], "input_schema": function["parameters"]}
    with api.messages.stream(
        model=model, max_tokens=80, messages=CHAT["messages"], tools=[tool],
        tool_choice={"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
    ) as stream:
        message = stream.get_final_message()
    blocks = [block for block in message.content if block.type == "tool_use"]
    assert message.stop_reason == "tool_use" and blocks[0].input["unit"] in ("celsius", "fahrenheit"), message


@check("openai: errors are of the right class")
def openai_errors(server):
    import openai

    api = client(server)
    model = api.models.list().data[0].id
    cases = [
        (openai.NotFoundError, dict(model="no such model", messages=CHAT["messages"])),
        (openai.BadRequestError, dict(model=model, messages=CHAT["messages"], temperature=-1)),
        (openai.BadRequestError, dict(model=model, messages=[])),
        (openai.BadRequestError, dict(model=model, messages=[{"role": "user", "content": "a " * 5000}])),
    ]
    for error, arguments in cases:
        try:
            api.chat.completions.create(**arguments)
        except error as caught:
            assert caught.body["message"], caught
        else:
            raise AssertionError(f"no error for {str(arguments)[:80]}")


@check("openai: a retrieved model, a model that is not there")
def openai_models(server):
    import openai

    api = client(server)
    model = api.models.list().data[0].id
    assert api.models.retrieve(model).id == model
    try:
        api.models.retrieve("a/b")
    except openai.NotFoundError:
        pass
    else:
        raise AssertionError("no error")


@check("anthropic: messages, whole and streamed, agree; tokens are counted")
def anthropic_messages(server):
    import anthropic

    api = anthropic.Anthropic(base_url=f"http://127.0.0.1:{server.port}", api_key="none", max_retries=0)
    model = json.loads(server.request("GET", "/v1/models")[1])["data"][0]["id"]
    arguments = dict(model=model, max_tokens=40, messages=CHAT["messages"], extra_body={"temperature": 0})
    whole = api.messages.create(**arguments)
    assert whole.stop_reason == "max_tokens" and len(whole.content[0].text) > 20, whole
    with api.messages.stream(**arguments) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    counted = api.messages.count_tokens(model=model, messages=CHAT["messages"]).input_tokens
    usage = final.usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens, (counted, usage)
    try:
        api.messages.create(**dict(arguments, model="none"))
    except anthropic.NotFoundError:
        pass
    else:
        raise AssertionError("no error")


@check("ollama: chat and generate, whole and streamed, agree; models are listed")
def ollama_chat(server):
    import ollama

    api = ollama.Client(host=f"http://127.0.0.1:{server.port}")
    model = api.list().models[0].model
    arguments = dict(model=model, messages=CHAT["messages"], options={"seed": 1, "num_predict": 30})
    whole = api.chat(**arguments)
    text = "".join(part.message.content for part in api.chat(**arguments, stream=True))
    assert text == whole.message.content and len(text) > 20, text
    assert whole.eval_count == 30 and whole.done_reason == "length"
    part = api.generate(model=model, prompt="One day", raw=True, options={"num_predict": 5})
    assert part.response and part.done
    assert api.show(model).details.format == "gguf" and api.ps().models[0].model == model
    try:
        api.chat(model="none", messages=CHAT["messages"])
    except ollama.ResponseError as error:
        assert error.status_code == 404
    else:
        raise AssertionError("no error")


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


@check("a client that leaves ends its request")
def client_leaves(server):
    before = server.metric("exsa_tokens_generated_total")
    open_stream(server, ENDLESS).close()
    server.wait_for("exsa_running", 0)
    generated = server.metric("exsa_tokens_generated_total") - before
    assert generated < 480, generated


@check("a client that leaves before a whole answer ends its request")
def client_leaves_whole(server):
    body = json.dumps(dict(ENDLESS, stream=False)).encode()
    before = server.metric("exsa_tokens_generated_total")
    connection = socket.create_connection(("127.0.0.1", server.port))
    head = f"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body)
    end = time.monotonic() + 10
    while server.metric("exsa_tokens_generated_total") == before and time.monotonic() < end:
        time.sleep(0.001)
    connection.close()
    server.wait_for("exsa_running", 0)
    assert server.metric("exsa_tokens_generated_total") - before < 480


@check("a client that reads nothing delays no other")
def client_reads_nothing(server):
    slow = [open_stream(server, ENDLESS) for _ in range(4)]
    response, text = server.request("POST", "/v1/completions", {"prompt": "The dog", "max_tokens": 20})
    assert response.status == 200, text
    for connection in slow:
        connection.close()
    server.wait_for("exsa_running", 0)


@check("foreign Host and Origin are refused")
def foreign(server):
    response, _ = server.request("GET", "/v1/models", headers={"Host": "rebound.example"})
    assert response.status == 421, response.status
    response, _ = server.request("GET", "/v1/models", headers={"Origin": "https://evil.example"})
    assert response.status == 403, response.status


@check("a head of 1 MiB and a body over the limit are refused")
def large_heads_and_bodies(server):
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    try:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Large: " + b"a" * (1 << 20) + b"\r\n\r\n")
    except OSError:
        pass
    try:
        assert b" 431 " in connection.recv(4096).split(b"\r\n")[0]
    except OSError:
        pass
    try:
        response, text = server.request("POST", "/v1/completions", b'{"prompt": "' + b"a" * (20 << 20) + b'"}')
        assert response.status == 413, (response.status, text)
    except OSError:
        # The server answers and closes before it has read the body, which a client that only writes sees as an error.
        pass
    assert server.request("GET", "/health")[0].status == 200


@check("connections that send a byte a second starve no other and are closed", quick=False)
def slow_heads(server):
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(400)]
    closed = 0
    for second in range(14):
        for connection in slow:
            try:
                connection.sendall(b"G"[:1])
            except OSError:
                closed += 1
        response, _ = server.request("GET", "/health")
        assert response.status == 200
        time.sleep(1)
    assert closed > 0, "connections without a whole head stay open"


@check("a connection over the limit of its address is closed", quick=False)
def connections_per_address(_):
    server = Server("--connections-per-address", "4")
    held = [socket.create_connection(("127.0.0.1", server.port), timeout=10) for _ in range(4)]
    extra = socket.create_connection(("127.0.0.1", server.port), timeout=10)
    assert extra.recv(1) == b""
    for connection in held:
        connection.close()
    time.sleep(0.3)
    assert server.request("GET", "/health")[0].status == 200
    assert server.stop() == 0


@check("200 streams at a time are whole and their own")
def many_streams(server):
    seeds = range(200)
    texts, errors = {}, []

    def run(seed):
        try:
            body = dict(prompt="One day", max_tokens=12, seed=seed)
            response, text = server.request("POST", "/v1/completions", body)
            assert response.status == 200, text
            texts[seed] = json.loads(text)["choices"][0]["text"]
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in seeds]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[:3]
    for seed in [0, 57, 199]:
        _, text = server.request("POST", "/v1/completions", dict(prompt="One day", max_tokens=12, seed=seed))
        assert json.loads(text)["choices"][0]["text"] == texts[seed], seed


@check("without authentication only loopback is bound")
def loopback_only(_):
    result = subprocess.run([ARGS.binary, "--host", "0.0.0.0", "--port", "0"], capture_output=True, text=True, timeout=30)
    assert result.returncode == 1 and "--insecure-no-auth" in result.stderr, result.stderr


@check("SIGTERM drains: a running stream ends whole, new requests are refused")
def drain(_):
    server = Server("--drain", "20")
    connection = open_stream(server, ENDLESS)
    server.process.send_signal(signal.SIGTERM)
    received = b""
    while part := connection.recv(65536):
        received += part
    assert b"[DONE]" in received and b'"finish_reason":"length"' in received, received[-300:]
    assert server.process.wait(timeout=30) == 0


def main():
    os.makedirs("target/test-server", exist_ok=True)
    server, failed, ran, skipped = Server(), 0, 0, 0
    for name, quick, function in CHECKS:
        if ARGS.quick and not quick:
            continue
        library = name.split(":")[0]
        if library in LIBRARIES and importlib.util.find_spec(library) is None:
            skipped += 1
            continue
        begun = time.monotonic()
        try:
            function(server)
            result = "ok"
        except Exception as error:  # noqa: BLE001
            result, failed = f"FAILED: {type(error).__name__}: {error}", failed + 1
        ran += 1
        print(f"{name} ... {result} ({time.monotonic() - begun:.1f} s)", flush=True)
    status = server.stop()
    print(f"server checks: {ran - failed} passed, {failed} failed, {skipped} skipped")
    sys.exit(1 if failed or status != 0 else 0)


main()
