"""nginx and HAProxy in front of two servers: streams arrive token by token, a drain loses no request."""

import contextlib
import http.client
import json
import re
import signal
import ssl
import threading
import time

from harness import DEPLOY, FOLDER, Server, answers, check, completion, free_port, program, run, running, wait_until

NAME = "models.example.org"


def certificate():
    """A certificate for this check, and its key."""
    cert, key = FOLDER / "cert.pem", FOLDER / "key.pem"
    subject = ["-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}"]
    run(program("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
        "-keyout", key, "-out", cert, *subject)  # fmt: skip
    return cert, key


def replaced(text, *changes):
    """A text with its parts changed, each of which must be there."""
    for old, new in changes:
        assert old in text, f"'{old}' is not in the file"
        text = text.replace(old, new)
    return text


@contextlib.contextmanager
def nginx(one, two, *changes):
    binary, (cert, key), port = program("nginx"), certificate(), free_port()
    folder = FOLDER / "nginx"
    folder.mkdir(exist_ok=True)
    text = replaced(
        (DEPLOY / "nginx.conf").read_text(),
        ("127.0.0.1:8081", f"127.0.0.1:{one.port}"),
        ("127.0.0.1:8082", f"127.0.0.1:{two.port}"),
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/nginx/exsa/cert.pem", str(cert)),
        ("/etc/nginx/exsa/key.pem", str(key)),
        ("/var/log/nginx/exsa.log", str(folder / "access.log")),
        *changes,
    )
    file = folder / "nginx.conf"
    file.write_text(f"pid {folder}/nginx.pid;\nerror_log {folder}/error.log info;\ndaemon off;\n{text}")
    run(binary, "-t", "-p", folder, "-c", file)
    with running("nginx", binary, "-p", folder, "-c", file):
        wait_until(lambda: answers(port), "nginx")
        yield port


@contextlib.contextmanager
def haproxy(one, two, *changes):
    binary, (cert, key), port = program("haproxy"), certificate(), free_port()
    both = FOLDER / "haproxy.pem"
    both.write_text(cert.read_text() + key.read_text())
    text = replaced(
        (DEPLOY / "haproxy.cfg").read_text(),
        ("127.0.0.1:8081", f"127.0.0.1:{one.port}"),
        ("127.0.0.1:8082", f"127.0.0.1:{two.port}"),
        ("bind :443", f"bind 127.0.0.1:{port}"),
        ("/etc/haproxy/exsa.pem", str(both)),
        *changes,
    )
    file = FOLDER / "haproxy.cfg"
    file.write_text(text)
    said = run(binary, "-c", "-f", file)
    assert "WARNING" not in said, said
    with running("haproxy", binary, "-db", "-f", file):
        wait_until(lambda: answers(port), "haproxy")
        yield port


class Client:
    """Sends requests through a proxy, by TLS."""

    def __init__(self, port):
        self.port = port
        self.context = ssl.create_default_context(cafile=FOLDER / "cert.pem")
        self.context.check_hostname = False

    def open(self, method, path, body=None):
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=self.context)
        payload = json.dumps(body) if body is not None else None
        connection.request(method, path, payload, {"Host": NAME, "Content-Type": "application/json"})
        return connection.getresponse()

    def complete(self, tokens):
        response = self.open("POST", "/v1/completions", completion(tokens))
        return response.status, response.read()

    def stream(self, tokens):
        """The times at which the events of a stream arrive, and its text."""
        begun = time.monotonic()
        response = self.open("POST", "/v1/completions", completion(tokens, stream=True))
        assert response.status == 200, response.read()
        times, text, whole = [], "", False
        while line := response.readline():
            if line.startswith(b"data: [DONE]"):
                whole = True
            elif line.startswith(b"data: "):
                times.append(time.monotonic() - begun)
                text += json.loads(line[6:])["choices"][0]["text"]
        assert whole, "the stream ended early"
        return times, text


FLAGS = ["--allowed-host", NAME, "--drain-delay", "3"]


def streams(proxy):
    with Server(*FLAGS) as one, Server(*FLAGS) as two, proxy(one, two) as port:
        client = Client(port)
        status, body = client.complete(8)
        assert status == 200, body
        times, text = client.stream(400)
        assert len(times) > 100 and len(text) > 100
        assert times[0] < times[-1] / 2, f"the first event came after {times[0]:.2f} s of {times[-1]:.2f} s"
        spread = sum(1 for before, after in zip(times, times[1:]) if after - before > 0.0001)
        assert spread > 50, f"{len(times)} events arrived in {spread} parts"
        assert client.open("GET", "/metrics").status == 404
        refused = client.open("GET", "/v1/models")
        assert re.fullmatch(r"[\w.:-]+", refused.headers["x-request-id"])
        # Both servers get requests.
        for _ in range(10):
            assert client.complete(2)[0] == 200
        finished = [server.request("GET", "/v1/stats")[1] for server in (one, two)]
        assert all(json.loads(text)["totals"]["requests"] > 0 for text in finished)
    return f"ok: {len(times)} events in {spread + 1} parts"


def drains(proxy):
    """One of two servers is stopped under traffic: every request is answered, and streams end whole."""
    with Server(*FLAGS) as one, Server(*FLAGS) as two, proxy(one, two) as port:
        client, outcomes, done = Client(port), [], threading.Event()

        def traffic(stream):
            while not done.is_set():
                try:
                    if stream:
                        outcomes.append((200, len(client.stream(200)[1])))
                    else:
                        outcomes.append(client.complete(4))
                except Exception as error:  # noqa: BLE001
                    outcomes.append((0, repr(error)))

        threads = [threading.Thread(target=traffic, args=[index < 2]) for index in range(4)]
        for thread in threads:
            thread.start()
        time.sleep(2)
        one.process.send_signal(signal.SIGTERM)
        wait_until(lambda: one.process.poll() is not None, "the end of the drained server", 40)
        assert one.process.returncode == 0
        time.sleep(2)
        done.set()
        for thread in threads:
            thread.join()
        failed = [outcome for outcome in outcomes if outcome[0] != 200]
        assert not failed, f"{len(failed)} of {len(outcomes)} requests failed: {failed[:3]}"
        assert len(outcomes) > 10
        assert client.complete(2)[0] == 200
    return f"ok: {len(outcomes)} requests, none lost"


class Nowhere:
    """The address of no server, for checks of a configuration alone."""

    def __init__(self, port):
        self.port = port


@check("nginx and haproxy: the options for consistent hashing are valid")
def hashing():
    one, two = Nowhere(8081), Nowhere(8082)
    nginx_options = [("    least_conn;\n", ""), ("    #   hash $http", "    hash $http")]
    with nginx(one, two, *nginx_options):
        pass
    haproxy_options = [("  balance leastconn\n", ""), ("  #   balance hdr", "  balance hdr"),
                       ("  #   hash-type", "  hash-type"), ("  #   hash-balance", "  hash-balance")]  # fmt: skip
    with haproxy(one, two, *haproxy_options):
        pass


for name, proxy in [("nginx", nginx), ("haproxy", haproxy)]:
    check(f"{name}: answers and streams pass through")(lambda proxy=proxy: streams(proxy))
    check(f"{name}: a drained server is taken out, no request is lost")(lambda proxy=proxy: drains(proxy))
