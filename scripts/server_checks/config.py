"""Checks of the configuration file, its reload, UNIX sockets and TLS."""

import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time

from harness import ARGS, ENDLESS, Server, check, open_stream


def run(*flags, file=None):
    """Runs the binary to its end."""
    flags = [*flags, "--config", str(file)] if file else flags
    return subprocess.run([ARGS.binary, *flags], capture_output=True, text=True, timeout=60)


class Configured(Server):
    """The binary with a configuration file, whose log is kept."""

    def __init__(self, text, *flags):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="exsa-"))
        self.file = self.folder / "exsa.toml"
        self.lines = []
        self.write(text)
        self.prepare()
        super().__init__("--config", str(self.file), *flags)

    def prepare(self):
        """Makes files that the configuration names."""

    def write(self, text):
        self.file.write_text(text.replace("FOLDER", str(self.folder)))

    def drain_log(self):
        for line in self.process.stderr:
            self.lines.append(line)
            self.log.write(line.encode())
            self.log.flush()

    def logged(self, text, seconds=10):
        """Waits for a line of the log with `text`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = [line for line in list(self.lines) if text in line]
            if found:
                return found[-1]
            time.sleep(0.02)
        raise AssertionError(f"no line with {text!r} in {self.lines}")

    def reload(self, text, outcome):
        self.lines.clear()
        self.write(text)
        self.process.send_signal(signal.SIGHUP)
        return self.logged(outcome)

    def stop(self):
        status = super().stop()
        shutil.rmtree(self.folder, ignore_errors=True)
        return status


@check("config: the printed example is valid")
def config_example(_):
    example = run("config", "example")
    assert example.returncode == 0 and "[listen]" in example.stdout, example
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(example.stdout)
        file.flush()
        checked = run("--check-config", file=file.name)
    assert checked.returncode == 0 and "is valid" in checked.stdout, checked


@check("config: --check-config prints all problems with their places")
def config_problems(_):
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write("[listen]\nprot = 1\nhost = 'nowhere'\n[log]\nlevel = 'loud'\n")
        file.flush()
        checked = run("--check-config", file=file.name)
        started = run(file=file.name)
    assert checked.returncode == 1 and started.returncode == 1, (checked, started)
    for problem in [":2:1: listen.prot", "did you mean 'port'?", ":3:8: listen.host", ":5:9: log.level", "3 problems"]:
        assert problem in checked.stderr, (problem, checked.stderr)


@check("config: flags override the file")
def config_flags(_):
    server = Configured("[limits]\nbody_bytes_max = 2048\n", "--body-max", "4096")
    try:
        for size, status in [(3000, 400), (5000, 413)]:
            response, text = server.request("POST", "/v1/completions", b'{"prompt": 1, "x": "' + b"a" * size + b'"}')
            assert response.status == status, (size, response.status, text)
    finally:
        server.stop()


@check("config: SIGHUP reloads a good file, keeps all of a bad one, and names what needs a restart")
def config_reload(_):
    server = Configured("")
    try:
        ask = lambda: server.request("POST", "/v1/completions", {"prompt": "a", "n": 3, "max_tokens": 1})[0].status
        assert ask() == 200
        stream = open_stream(server, ENDLESS)
        line = server.reload("[limits]\nn_max = 2\n[listen]\nport = 1\nalso = ['127.0.0.1:1']\n", "need a restart")
        assert "listen.also" in line and "listen.port" not in line, line
        assert "limits.n_max" in server.logged("configuration reloaded")
        assert ask() == 400
        server.reload("[limits]\nn_max = 128\nn_min = 3\n", "nothing has changed")
        server.logged("n_min")
        assert ask() == 400
        response, text = server.request("POST", "/v1/config/reload", {})
        assert response.status == 400 and "n_min" in text.decode(), (response.status, text)
        server.write("")
        response, text = server.request("POST", "/v1/config/reload", {})
        report = json.loads(text)
        assert response.status == 200 and report["changed"] == ["limits.n_max"], report
        assert ask() == 200
        received = b""
        while part := stream.recv(65536):
            received += part
            if b"[DONE]" in received:
                break
        assert b"[DONE]" in received, "a reload must not disturb a stream"
    finally:
        assert server.stop() == 0


@check("config: the log is JSON with one line per request, without prompts")
def config_log(_):
    server = Configured("[log]\nformat = 'json'\n")
    try:
        server.request("POST", "/v1/completions", {"prompt": "secret words", "max_tokens": 3}, {"X-Request-Id": "r-17"})
        line = server.logged('"r-17"')
        entry = json.loads(line)
        expected = {"id": "r-17", "method": "POST", "path": "/v1/completions", "status": 200, "caller": "anonymous"}
        assert expected.items() <= entry.items(), entry
        assert entry["completion_tokens"] == 3 and entry["prompt_tokens"] > 0 and entry["model"], entry
        assert "secret" not in "".join(server.lines)
    finally:
        server.stop()


def over_unix(path, method, target, body=None, host="anything.example"):
    connection = http.client.HTTPConnection("localhost", timeout=30)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.settimeout(30)
    connection.sock.connect(str(path))
    connection.request(method, target, json.dumps(body) if body else None, {"Host": host})
    response = connection.getresponse()
    return response.status, response.read()


@check("config: a UNIX socket beside TCP, private, without a check of Host; drained and removed")
def config_unix(_):
    server = Configured("[listen]\nunix = 'FOLDER/s'\nunix_mode = '0660'\n", "--drain", "20")
    path = server.folder / "s"
    try:
        assert oct(os.stat(path).st_mode & 0o777) == "0o660"
        status, text = over_unix(path, "POST", "/v1/completions", {"prompt": "One day", "max_tokens": 5})
        assert status == 200, text
        if shutil.which("curl"):
            curl = ["curl", "-sS", "--fail", "--unix-socket", str(path), "http://anything.example/health"]
            assert b"ok" in subprocess.run(curl, capture_output=True, check=True, timeout=30).stdout
        assert server.request("GET", "/health", headers={"Host": "anything.example"})[0].status == 421
        answers = []
        body = dict(ENDLESS, stream=False, max_tokens=200)
        thread = threading.Thread(target=lambda: answers.append(over_unix(path, "POST", "/v1/completions", body)))
        thread.start()
        server.wait_for("exsa_running", 1)
        assert server.process.poll() is None
        server.process.terminate()
        thread.join(timeout=60)
        assert answers and answers[0][0] == 200, answers
        assert server.process.wait(timeout=30) == 0
        assert not path.exists()
    finally:
        server.stop()


def openssl(folder, *arguments):
    subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, check=True, timeout=60)


def make_authority(folder, name):
    openssl(folder, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
            "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")


def make_certificate(folder, name, authority, subject):
    (folder / "names.ext").write_text("subjectAltName = DNS:localhost, IP:127.0.0.1\n")
    openssl(folder, "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", subject,
            "-keyout", f"{name}.key", "-out", f"{name}.csr")
    openssl(folder, "x509", "-req", "-in", f"{name}.csr", "-CA", f"{authority}.pem", "-CAkey", f"{authority}.key",
            "-CAcreateserial", "-days", "2", "-extfile", "names.ext", "-out", f"{name}.pem")


def has_tls():
    """Whether the binary was built with TLS, and certificates can be made."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write("[tls]\ncert = '/'\n")
        file.flush()
        built = "without TLS" not in run("--check-config", file=file.name).stderr
    return built and shutil.which("openssl") is not None


def tls_get(server, target, client=None, body=None):
    """An answer, and the serial number of the server's certificate."""
    context = ssl.create_default_context(cafile=server.folder / "root.pem")
    if client:
        context.load_cert_chain(server.folder / f"{client}.pem", server.folder / f"{client}.key")
    connection = http.client.HTTPSConnection("localhost", server.port, context=context, timeout=30)
    connection.request("POST" if body else "GET", target, json.dumps(body) if body else None)
    serial = connection.sock.getpeercert()["serialNumber"]
    response = connection.getresponse()
    text = response.read()
    connection.close()
    return response.status, text, serial


class Secured(Configured):
    """The binary with TLS; the certificates are in its folder."""

    def __init__(self, text="", *flags):
        super().__init__("[tls]\ncert = 'FOLDER/server.pem'\nkey = 'FOLDER/server.key'\n" + text, *flags)

    def prepare(self):
        make_authority(self.folder, "root")
        make_certificate(self.folder, "server", "root", "/CN=server")
        make_certificate(self.folder, "alice", "root", "/O=Example/CN=alice")

    def wait_ready(self, seconds=60):
        end = time.monotonic() + seconds
        while tls_get(self, "/health/ready", client="alice")[0] != 200:
            assert time.monotonic() < end, "the server is not ready"
            time.sleep(0.02)


if has_tls():

    @check("config: TLS with HTTP/1.1 and HTTP/2, streams included; certificates are renewed on SIGHUP")
    def config_tls(_):
        server = Secured()
        try:
            status, _, first = tls_get(server, "/health")
            assert status == 200
            body = {"prompt": "One day", "max_tokens": 20, "stream": True}
            status, text, _ = tls_get(server, "/v1/completions", body=body)
            assert status == 200 and text.endswith(b"data: [DONE]\n\n"), text
            if shutil.which("curl"):
                for version in ["--http1.1", "--http2"]:
                    curl = ["curl", "-sSN", "--fail", version, "--cacert", str(server.folder / "root.pem"), "-d",
                            json.dumps(body), "-w", "%{http_version}", f"https://localhost:{server.port}/v1/completions"]
                    sent = subprocess.run(curl, capture_output=True, check=True, timeout=60).stdout.decode()
                    assert "data: [DONE]" in sent and sent.count("data: ") > 10, sent
                    assert sent.endswith("1.1" if version == "--http1.1" else "2"), sent[-20:]
            plain = socket.create_connection(("127.0.0.1", server.port), timeout=30)
            plain.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert b"200" not in plain.recv(100)
            make_certificate(server.folder, "server", "root", "/CN=renewed")
            server.reload(server.file.read_text(), "configuration reloaded")
            status, _, second = tls_get(server, "/health")
            assert status == 200 and second != first
            (server.folder / "server.key").write_text("no key")
            server.reload(server.file.read_text(), "nothing has changed")
            assert tls_get(server, "/health")[2] == second
        finally:
            assert server.stop() == 0

    @check("config: certificates of clients are required and verified")
    def config_mutual_tls(_):
        server = Secured("client_ca = 'FOLDER/root.pem'\nclient_auth = 'required'\n")
        try:
            make_authority(server.folder, "stranger")
            assert tls_get(server, "/health", client="alice")[0] == 200
            for client in [None, "stranger"]:
                try:
                    status = tls_get(server, "/health", client=client)
                except (ssl.SSLError, ConnectionError):
                    continue
                raise AssertionError(f"{client} was let in: {status}")
        finally:
            assert server.stop() == 0
