"""Checks of limits, clients that leave, and the drain."""

import http.client
import json
import signal
import socket
import subprocess
import threading
import time

from harness import ARGS, ENDLESS, Server, check, open_stream


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
        # The server answers and closes before it has read the body, which a client that only writes sees as
        # an error.
        pass
    assert server.request("GET", "/health")[0].status == 200


@check("a thousand connections that send a byte a second starve no other and are closed", quick=False)
def slow_heads(_):
    server = Server("--connections", "1200", "--connections-per-address", "1200")
    slow = [socket.create_connection(("127.0.0.1", server.port), timeout=30) for _ in range(1000)]
    closed = 0
    for second in range(14):
        for connection in slow:
            try:
                connection.sendall(b"G"[:1])
            except OSError:
                closed += 1
        begun = time.monotonic()
        response, _ = server.request("POST", "/v1/completions", {"prompt": "One day", "max_tokens": 3})
        assert response.status == 200 and time.monotonic() - begun < 5, response.status
        time.sleep(1)
    assert closed > 0, "connections without a whole head stay open"
    assert server.stop() == 0


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


@check("SIGTERM: ready turns first, requests are accepted for the delay, then the listener closes, streams end whole")
def drain_order(_):
    server = Server("--drain-delay", "3", "--drain", "60")
    kept = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
    idle = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    kept.request("GET", "/health/ready")
    response = kept.getresponse()
    assert response.read() and response.status == 200 and response.headers["connection"] is None
    stream = open_stream(server, ENDLESS)
    begun = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    # New and kept connections are served; each response ends its connection.
    while True:
        response, _ = server.request("GET", "/health/ready")
        if response.status == 503:
            break
        assert time.monotonic() - begun < 2.5, "ready does not turn"
    kept.request("POST", "/v1/completions", json.dumps({"prompt": "a", "max_tokens": 1}))
    response = kept.getresponse()
    assert response.status == 200 and response.headers["connection"] == "close" and response.read()
    while True:
        try:
            server.request("GET", "/health/live")
        except OSError:
            break
        assert time.monotonic() - begun < 60, "the listener does not close"
        time.sleep(0.05)
    closed = time.monotonic() - begun
    assert closed > 2.9, f"the listener closed after {closed:.2f} s"
    assert idle.recv(1) == b"", "an idle connection stays"
    received = b""
    while part := stream.recv(65536):
        received += part
    assert b"[DONE]" in received, received[-300:]
    assert server.process.wait(timeout=60) == 0


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
