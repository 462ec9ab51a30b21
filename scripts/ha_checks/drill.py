"""Two servers with shared keys behind a proxy: restarts one after the other, a revocation, a crash."""

import contextlib
import http.client
import json
import shutil
import signal
import socket
import statistics
import time

import proxies
from harness import ARGS, FOLDER, Server, free_port, program, run as command, wait_until
from load import Load, truths
from proxies import NAME

# Time limits are wide, since the machine may be loaded: a check fails where something does not happen at all.
PATIENCE = 90


class Pair:
    """Server a exports its keys, server b imports them."""

    def __init__(self, name):
        self.folder = FOLDER / f"ha-{name}-{time.time_ns()}"
        self.folder.mkdir(parents=True)
        keys = self.folder / "keys"
        self.flags = {}
        for server, setting in [("a", "export"), ("b", "import")]:
            data, file = self.folder / server, self.folder / f"{server}.toml"
            file.write_text(
                f"[access]\nenabled = true\ndata = '{data}'\n{setting} = '{keys}'\n"
                f"[http]\nallowed_hosts = ['{NAME}']\n[drain]\ndelay = '3s'\ntimeout = '120s'\n"
                f"[quota]\nshare = 0.5\n"
            )
            self.flags[server] = ["--config", str(file)]
        self.servers = {}
        ports = {server: free_port() for server in "ab"}
        for server in "ab":
            self.servers[server] = Server(*self.flags[server], port=ports[server])

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for server in self.servers.values():
            server.__exit__()
        shutil.rmtree(self.folder, ignore_errors=True)

    def key(self, name):
        """Makes a key on server a, and waits until server b knows it."""
        key = command(ARGS.binary, "key", "new", "--data", self.folder / "a", "--name", name).split()[-1]
        wait_until(lambda: self.status("b", key) == 200, "the new key on server b", PATIENCE)
        return key

    def revoke(self, key):
        command(ARGS.binary, "key", "revoke", "--data", self.folder / "a", key.split("-")[1])

    def status(self, server, key):
        return self.servers[server].request("GET", "/v1/models", key=key)[0]

    def restart(self, server):
        """Stops a server as an operator does, and starts it again on its port."""
        old = self.servers[server]
        old.process.send_signal(signal.SIGTERM)
        wait_until(lambda: old.process.poll() is not None, f"the end of server {server}", PATIENCE + 60)
        assert old.process.returncode == 0, f"status {old.process.returncode}"
        self.servers[server] = Server(*self.flags[server], port=old.port)


class HAProxy:
    """HAProxy's view of its servers."""

    def __init__(self, path):
        self.path = path

    def state(self, server):
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(10)
            connection.connect(str(self.path))
            connection.sendall(b"show stat\n")
            text = b"".join(iter(lambda: connection.recv(65536), b"")).decode()
        fields = text.splitlines()[0].lstrip("# ").split(",")
        rows = [dict(zip(fields, line.split(","))) for line in text.splitlines()[1:] if line]
        return next(row["status"] for row in rows if row["pxname"] == "exsa_servers" and row["svname"] == server)

    def wait(self, server, state):
        wait_until(lambda: self.state(server) == state, f"server {server} {state} in HAProxy", PATIENCE)


@contextlib.contextmanager
def started(name, pair):
    """The proxy with the configuration of deploy/; responses name the server that has sent them."""
    one, two = pair.servers["a"], pair.servers["b"]
    if name == "nginx":
        header = ("    location / {\n", "    location / {\n      add_header x-served-by $upstream_addr always;\n")
        with proxies.nginx(one, two, header) as port:
            yield port, None
    else:
        path = FOLDER / f"haproxy-{time.time_ns()}.sock"
        changes = [
            ("  maxconn 4096\n", f"  maxconn 4096\n  stats socket {path} mode 600\n"),
            ("  balance leastconn\n", "  balance leastconn\n  http-response set-header x-served-by %si:%sp\n"),
        ]
        with proxies.haproxy(one, two, *changes) as port:
            view = HAProxy(path)
            for server in "ab":
                view.wait(server, "UP")
            yield port, view


def run(name, report, rounds):
    try:
        for needed in [name, "openssl"]:
            program(needed)
    except Exception as error:  # noqa: BLE001
        reason = error
        return report(f"{name}: two servers", lambda: skip(reason))
    with Pair(name) as pair:
        keys = [pair.key(f"user {i}") for i in range(3)]
        texts = truths(pair.servers["a"], keys[0])
        with started(name, pair) as (port, view):
            restarts = f"{name}: {rounds} rolling restart{'s' if rounds > 1 else ''} of both servers under load"
            report(restarts, lambda: rolling(pair, port, view, keys, texts, rounds))
            report(f"{name}: keys are changed on the exporting server alone", lambda: owned(pair))
            report(f"{name}: a revoked key is refused by the other server within a second", lambda: revoked(pair))
            report(f"{name}: a revocation ends a stream on the other server", lambda: cut(pair))
            victim = "b" if name == "haproxy" else "a"
            report(
                f"{name}: kill -9 of server {victim}: requests in flight on it fail, no others",
                lambda: killed(pair, port, view, keys, texts, victim),
            )


def skip(reason):
    raise reason


def rolling(pair, port, view, keys, texts, rounds):
    with Load(port, keys, texts) as load:
        wait_until(lambda: len(load.outcomes) > 10, "the first answers", PATIENCE)
        for _ in range(rounds):
            for server in "ab":
                pair.restart(server)
                if view:
                    view.wait(server, "UP")
                before = len(load.outcomes)
                wait_until(lambda: len(load.outcomes) > before + 5, "answers after a restart", PATIENCE)
    said = load.check()
    by_server = {port: sum(port in outcome.server for outcome in load.outcomes) for port in map(str, ports(pair))}
    assert all(by_server.values()), f"a server got no requests: {by_server}"
    return said


def ports(pair):
    return [server.port for server in pair.servers.values()]


def owned(pair):
    key = command(ARGS.binary, "key", "new", "--data", pair.folder / "a", "--name", "k", "--scope", "keys").split()[-1]
    wait_until(lambda: pair.servers["b"].request("GET", "/v1/keys", key=key)[0] == 200, "the key on b", PATIENCE)
    status, text = pair.servers["b"].request("POST", "/v1/keys", {"name": "x"}, key=key)
    assert status == 409 and json.loads(text)["error"]["code"] == "keys_imported", (status, text)
    return json.loads(text)["error"]["message"]


def revoked(pair):
    times = []
    for i in range(5):
        key = pair.key(f"revoked {i}")
        pair.revoke(key)
        begun = time.monotonic()
        while pair.status("b", key) != 401:
            assert time.monotonic() - begun < PATIENCE, "the key is still accepted"
            time.sleep(0.01)
        times.append(time.monotonic() - begun)
    # A pause of a loaded machine may delay one of them.
    assert statistics.median(times) < 1, times
    return f"median {statistics.median(times):.2f} s, maximum {max(times):.2f} s"


def cut(pair):
    """A stream of many choices, which lasts longer than the revocation."""
    key = pair.key("cut")
    connection = http.client.HTTPConnection("127.0.0.1", pair.servers["b"].port, timeout=PATIENCE)
    request = {"prompt": ["One day"] * 64, "max_tokens": 480, "stream": True, "ignore_eos": True}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/completions", json.dumps(request), headers)
    response = connection.getresponse()
    assert response.status == 200 and response.readline(), response.read()
    pair.revoke(key)
    begun, text = time.monotonic(), response.read()
    assert b"key_revoked" in text, text[-200:]
    return f"{time.monotonic() - begun:.2f} s after the revocation"


def killed(pair, port, view, keys, texts, victim):
    server = pair.servers[victim]
    address = f"127.0.0.1:{server.port}"
    with Load(port, keys, texts) as load:
        wait_until(lambda: len(load.outcomes) > 20, "the first answers", PATIENCE)
        # A stream must be in flight on the server.
        wait_until(lambda: any(o.stream and o.server == address and not o.ended for o in list(load.running.values())),
                   "a stream on the server", PATIENCE)  # fmt: skip
        begun = time.monotonic()
        server.process.kill()
        server.process.wait()
        gone = time.monotonic()
        noticed = ""
        if view:
            view.wait(victim, "DOWN")
            noticed = f"; HAProxy took it out after {time.monotonic() - begun:.2f} s"
        before = len(load.outcomes)
        wait_until(lambda: len(load.outcomes) > before + 30, "answers after the crash", PATIENCE)
    failed = load.failed()
    late = [outcome for outcome in failed if outcome.begun > gone]
    early = [outcome for outcome in failed if outcome.ended < begun]
    elsewhere = [outcome for outcome in failed if outcome.server not in ("", address)]
    assert not late, f"{len(late)} requests failed that began after the crash: {late[:3]}"
    assert not early, f"{len(early)} requests failed before the crash: {early[:3]}"
    assert not elsewhere, f"{len(elsewhere)} requests on the other server failed: {elsewhere[:3]}"
    assert len(failed) <= len(load.clients)
    later = {outcome.server for outcome in load.outcomes if outcome.begun > gone}
    assert address not in later and later, later
    return f"{len(failed)} of {len(load.outcomes)} requests failed{noticed}"
