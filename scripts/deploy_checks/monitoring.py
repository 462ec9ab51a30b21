"""Prometheus' configuration and alerts, and the dashboard over a real Prometheus."""

import json
import math
import re
import threading
import time
import urllib.parse
import urllib.request

from harness import DEPLOY, FOLDER, Server, check, completion, free_port, program, run, running, wait_until

PROMETHEUS = DEPLOY / "prometheus"


@check("promtool: configuration and alerts are valid")
def configuration():
    promtool = program("promtool")
    run(promtool, "check", "config", PROMETHEUS / "prometheus.yml")
    run(promtool, "check", "rules", "--lint=all", "--lint-fatal", PROMETHEUS / "alerts.yml")


@check("promtool: the alerts fire when they should, and only then")
def alerts():
    run(program("promtool"), "test", "rules", PROMETHEUS / "alerts_test.yml")
    names = set(re.findall(r"alert: (\w+)", (PROMETHEUS / "alerts.yml").read_text()))
    tested = set(re.findall(r"alertname: (\w+)", (PROMETHEUS / "alerts_test.yml").read_text()))
    assert names == tested, f"without a test: {names - tested}"


@check("promtool: /metrics is valid")
def metrics():
    promtool = program("promtool")
    with Server() as server:
        server.request("POST", "/v1/completions", completion(8))
        status, page = server.request("GET", "/metrics")
    assert status == 200
    run(promtool, "check", "metrics", input=page)


def queries():
    """The queries of the dashboard and of the alerts, with the variables that Grafana would fill in."""
    board = json.loads((DEPLOY / "grafana" / "exsa.json").read_text())
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"].replace("$__rate_interval", "10s")
            yield panel["title"], query.replace("$instance", ".*").replace("$model", ".*")


@check("Prometheus scrapes the server; every query of the dashboard has data, every rule is evaluated")
def dashboard():
    prometheus = program("prometheus")
    port = free_port()
    with Server() as server:
        text = (PROMETHEUS / "prometheus.yml").read_text()
        assert "127.0.0.1:8080" in text and "15s" in text
        text = text.replace("127.0.0.1:8080", f"127.0.0.1:{server.port}").replace("15s", "1s")
        folder = FOLDER / "prometheus"
        folder.mkdir(exist_ok=True)
        (folder / "prometheus.yml").write_text(text)
        (folder / "alerts.yml").write_text((PROMETHEUS / "alerts.yml").read_text())
        command = [
            prometheus,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / f'data-{time.time_ns()}'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ]

        def ask(path):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/{path}", timeout=10) as response:
                return json.load(response)["data"]

        def query(text):
            return ask("query?" + urllib.parse.urlencode({"query": text}))["result"]

        def is_up():
            try:
                return any(sample["value"][1] == "1" for sample in query('up{job="exsa"}'))
            except OSError:
                return False

        done = threading.Event()

        def traffic():
            while not done.is_set():
                server.request("POST", "/v1/completions", completion(16))
                time.sleep(0.2)

        client = threading.Thread(target=traffic)
        client.start()
        try:
            with running("prometheus", *command):
                wait_until(is_up, "a scrape", 30)
                wanted = list(queries())
                assert len(wanted) > 20
                missing = dict.fromkeys(wanted)

                def has_data(expression):
                    values = [float(sample["value"][1]) for sample in query(expression)]
                    return len(values) > 0 and any(math.isfinite(value) for value in values)

                def complete():
                    for item in list(missing):
                        if has_data(item[1]):
                            del missing[item]
                    return not missing

                try:
                    wait_until(complete, "data", 40)
                except AssertionError:
                    raise AssertionError(f"no data: {list(missing)}") from None
                wait_until(
                    lambda: all(r["health"] == "ok" for g in ask("rules")["groups"] for r in g["rules"]),
                    "all rules evaluated",
                )
                firing = ask("alerts")["alerts"]
                assert firing == [], firing
        finally:
            done.set()
            client.join()
    return f"ok: {len(wanted)} queries"
