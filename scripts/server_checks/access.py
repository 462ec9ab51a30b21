"""Checks of keys and tokens."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time

from harness import ARGS, ENDLESS, Server, check


def key_command(data, *words):
    """Runs `exsa-server key`. Returns its exit status, standard output and standard error."""
    command = [ARGS.binary, "key", *words, "--data", data]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout.strip(), done.stderr


def new_key(data, *words):
    status, key, error = key_command(data, "new", "--name", "check", *words)
    assert status == 0 and len(key) == 65 and key.startswith("exsa-"), (status, key, error)
    return key


def bearer(key):
    return {"Authorization": f"Bearer {key}"}


class Guarded:
    """A server that requires keys, and its data folder."""

    def __init__(self, *flags):
        self.folder = tempfile.mkdtemp(prefix="exsa-access-")
        self.data = os.path.join(self.folder, "data")
        self.server = Server("--data", self.data, *flags)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        assert self.server.stop() == 0
        shutil.rmtree(self.folder)

    def status(self, path, key, method="GET", body=None):
        response, text = self.server.request(method, path, body, bearer(key) if key else {})
        assert not key or key.encode() not in text, text
        return response.status


@check("keys: wrong, missing, revoked and expired keys are refused; health is open")
def keys_refused(_):
    with Guarded() as guarded:
        key, short = new_key(guarded.data), new_key(guarded.data, "--expires", "1s")
        assert guarded.status("/v1/models", key) == 200
        assert guarded.status("/v1/models", None) == 401
        assert guarded.status("/v1/models", key[:-1] + ("A" if key[-1] != "A" else "Q")) == 401
        assert guarded.status("/metrics", key) == 403
        assert guarded.status("/health/ready", None) == 200
        response, _ = guarded.server.request("GET", "/v1/models", headers={"x-api-key": key})
        assert response.status == 200
        response, _ = guarded.server.request("GET", "/v1/models")
        assert response.getheader("WWW-Authenticate", "").startswith("Bearer")
        time.sleep(1.2)
        assert guarded.status("/v1/models", short) == 401
        identity = key.split("-")[1]
        assert key_command(guarded.data, "revoke", identity)[0] == 0
        assert guarded.status("/v1/models", key) == 401


@check("keys: a key revoked in mid-stream ends the stream")
def keys_revoked_in_stream(_):
    with Guarded() as guarded:
        key = new_key(guarded.data)
        # 64 answers take longer than the revocation.
        body = json.dumps(dict(ENDLESS, prompt=["One day"] * 64)).encode()
        connection = socket.create_connection(("127.0.0.1", guarded.server.port), timeout=30)
        head = "\r\n".join(
            [
                "POST /v1/completions HTTP/1.1",
                "Host: localhost",
                f"Authorization: Bearer {key}",
                f"Content-Length: {len(body)}",
                "Connection: close",
                "",
                "",
            ]
        )
        connection.sendall(head.encode() + body)
        received = b""
        while b"data: " not in received:
            received += connection.recv(4096)
        assert key_command(guarded.data, "revoke", key.split("-")[1])[0] == 0
        while part := connection.recv(65536):
            received += part
        assert b"key_revoked" in received, received[-300:]


@check("keys: the command line works with a running server and without")
def keys_command_line(_):
    with Guarded() as guarded:
        data = guarded.data
        assert os.stat(data).st_mode & 0o777 == 0o700
        assert os.stat(os.path.join(data, "control.sock")).st_mode & 0o777 == 0o600
        assert os.stat(os.path.join(data, "exsa.redb")).st_mode & 0o777 == 0o600
        running = new_key(data, "--scope", "infer", "--scope", "metrics", "--group", "team", "--model", "x*")
        guarded.server.process.kill()
        guarded.server.process.wait()
        # The socket of the killed server is still there.
        assert os.path.exists(os.path.join(data, "control.sock"))
        stopped = new_key(data, "--priority-max", "batch", "--weight", "0.5", "--expires", "30d", "--trusted-proxy")
        status, listed, _ = key_command(data, "list", "--json")
        records = {record["id"]: record for record in json.loads(listed)["data"]}
        first, second = records[running.split("-")[1]], records[stopped.split("-")[1]]
        assert first["scopes"] == ["infer", "metrics"] and first["models"] == ["x*"] and first["group"] == "team"
        assert second["priority_max"] == "batch" and second["trusted_proxy"] and second["weight"] == 0.5
        assert second["expires"] == second["created"] + 30 * 86400
        assert running not in listed and stopped not in listed
        status, table, _ = key_command(data, "list")
        assert status == 0 and len(table.splitlines()) == 3, table
        guarded.server = Server("--data", data)
        assert guarded.status("/v1/models", running) == 200
        status, rotated, _ = key_command(data, "rotate", running.split("-")[1], "--overlap", "1h")
        assert status == 0 and rotated != running
        assert guarded.status("/v1/models", running) == guarded.status("/v1/models", rotated) == 200
        status, last, _ = key_command(data, "rotate", running.split("-")[1])
        assert guarded.status("/v1/models", rotated) == 401 and guarded.status("/v1/models", last) == 200
        status, _, error = key_command(data, "revoke", "../../etc")
        assert status == 1 and "there is no key" in error, error
        status, _, error = key_command(data, "new", "--name", "x", "--scope", "all")
        assert status == 2 and "infer, models" in error, error
        second_server = subprocess.run(
            [ARGS.binary, "--port", "0", "--data", data], capture_output=True, text=True, timeout=60
        )
        assert second_server.returncode == 1 and "another process" in second_server.stderr, second_server.stderr


@check("keys: a data folder that others can enter is refused")
def keys_folder_mode(_):
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        status, _, error = key_command(folder, "list")
        assert status == 1 and "chmod 700" in error, error


@check("keys: many wrong keys of an address are answered by 429, valid ones pass")
def keys_failures(_):
    with Guarded() as guarded:
        key = new_key(guarded.data)
        seen = [guarded.status("/v1/models", f"wrong-{n}") for n in range(40)]
        assert seen[:20] == [401] * 20 and 429 in seen[20:], seen
        assert guarded.status("/v1/models", key) == 200


@check("openai: AuthenticationError and PermissionDeniedError")
def openai_errors(_):
    import openai

    with Guarded() as guarded:
        address = f"http://127.0.0.1:{guarded.server.port}/v1"
        key = new_key(guarded.data, "--model", "other*")
        for secret, expected in [("exsa-wrong", openai.AuthenticationError), (key, openai.PermissionDeniedError)]:
            api = openai.OpenAI(base_url=address, api_key=secret, max_retries=0)
            try:
                api.completions.create(model="exsa-tiny", prompt="One day", max_tokens=1)
                raise RuntimeError("the request was answered")
            except expected as error:
                assert secret not in str(error)
        assert openai.OpenAI(base_url=address, api_key=key).models.list().data == []


@check("anthropic: AuthenticationError, and a key in x-api-key")
def anthropic_errors(_):
    import anthropic

    with Guarded() as guarded:
        address = f"http://127.0.0.1:{guarded.server.port}"
        arguments = dict(model="", max_tokens=3, messages=[{"role": "user", "content": "Hello"}])
        try:
            anthropic.Anthropic(base_url=address, api_key="wrong", max_retries=0).messages.create(**arguments)
            raise RuntimeError("the request was answered")
        except anthropic.AuthenticationError as error:
            assert error.body["error"]["type"] == "authentication_error", error.body
        key = new_key(guarded.data)
        arguments["model"] = guarded.server.request("GET", "/v1/models", headers=bearer(key))[1].decode()
        arguments["model"] = json.loads(arguments["model"])["data"][0]["id"]
        assert anthropic.Anthropic(base_url=address, api_key=key).messages.create(**arguments).usage.output_tokens > 0
