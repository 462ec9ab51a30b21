"""Checks of the export of traces: a receiver in Python, and Rotel, a collector in Rust, between it and the server."""

import gzip
import http.server
import importlib
import json
import os
import pathlib
import socket
import subprocess
import tempfile
import threading
import time

from config import Configured, run
from harness import ENDLESS, check, open_stream

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def has_telemetry():
    """Whether the binary was built with the feature otel."""
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write("[telemetry]\nendpoint = 'http://127.0.0.1:9'\n")
        file.flush()
        checked = run("--check-config", file=file.name)
    return "built without OpenTelemetry" not in checked.stderr


def has(module):
    try:
        return importlib.import_module(module) is not None
    except ImportError:
        return False


class Receiver:
    """Receives OTLP over HTTP and keeps the spans by name."""

    def __init__(self):
        from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

        receiver = self
        self.spans, self.headers, self.resource = [], [], {}

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers["content-encoding"] == "gzip":
                    body = gzip.decompress(body)
                for part in ExportTraceServiceRequest.FromString(body).resource_spans:
                    receiver.resource = attributes(part.resource)
                    receiver.spans += [span for scope in part.scope_spans for span in scope.spans]
                receiver.headers.append(dict(self.headers))
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def span(self, name, seconds=20):
        """Waits for a span."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            found = [span for span in list(self.spans) if span.name == name]
            if found:
                return found[-1]
            time.sleep(0.02)
        raise AssertionError(f"no span {name!r} among {[span.name for span in self.spans]}")


def attributes(of):
    """Attributes of a span or a resource."""

    def read(value):
        kind = value.WhichOneof("value")
        return [read(item) for item in value.array_value.values] if kind == "array_value" else getattr(value, kind)

    return {item.key: read(item.value) for item in of.attributes}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answer_and_check(server, receiver):
    """Sends a traced request; checks the spans that the receiver gets."""
    body = {"prompt": "a private question", "max_tokens": 4, "temperature": 0.5, "seed": 3}
    headers = {"traceparent": f"00-{TRACE}-{PARENT}-01", "x-request-id": "traced-1"}
    response, text = server.request("POST", "/v1/completions", body, headers)
    assert response.status == 200, text
    answer = json.loads(text)
    outer = receiver.span("POST /v1/completions")
    inner = receiver.span(f"text_completion {answer['model']}")
    assert outer.trace_id.hex() == inner.trace_id.hex() == TRACE
    assert (outer.parent_span_id.hex(), inner.parent_span_id) == (PARENT, outer.span_id)
    told = attributes(outer)
    assert (told["http.response.status_code"], told["http.route"]) == (200, "/v1/completions"), told
    assert (told["client.address"], told["exsa.request.id"]) == ("127.0.0.1", "traced-1"), told
    told = attributes(inner)
    assert told["gen_ai.request.temperature"] == 0.5 and told["gen_ai.request.max_tokens"] == 4, told
    assert told["gen_ai.usage.output_tokens"] == answer["usage"]["completion_tokens"], told
    assert told["gen_ai.response.finish_reasons"] == [answer["choices"][0]["finish_reason"]], told
    assert [event.name for event in inner.events] == ["exsa.first_token"]
    kept = "".join(map(str, receiver.spans))
    assert "private" not in kept and answer["choices"][0]["text"].strip() not in kept
    return outer


def configured(url, more=""):
    return Configured(f"[telemetry]\nendpoint = '{url}'\ninterval = '50ms'\n{more}\n[log]\nformat = 'json'\n")


BUILT = has_telemetry()
READS = BUILT and has("opentelemetry.proto.collector.trace.v1.trace_service_pb2")
if not BUILT:
    print("skipped: the checks of traces: the binary was built without the feature otel")
elif not READS:
    print("skipped: the checks of traces with a receiver: there is no Python package opentelemetry-proto")
elif not has("rotel"):
    print("skipped: the check of traces with a collector: there is no Python package rotel")

if BUILT:

    @check("telemetry: a collector that is down harms nothing, is logged once, and does not hold up the end")
    def telemetry_down(_):
        server = configured(f"http://127.0.0.1:{free_port()}", "timeout = '100ms'")
        for _ in range(10):
            response, text = server.request("POST", "/v1/completions", {"prompt": "a", "max_tokens": 1})
            assert response.status == 200, text
            time.sleep(0.1)
        end = time.monotonic() + 20
        while server.metric('exsa_telemetry_dropped_spans_total') < 20:
            assert time.monotonic() < end, "the spans are not counted"
            time.sleep(0.05)
        told = [line for line in server.lines if "traces cannot be exported" in line]
        assert len(told) == 1, told
        begun = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - begun < 5


if READS:

    @check("telemetry: spans of a request and its inference; log lines with their ids")
    def telemetry_spans(_):
        receiver = Receiver()
        os.environ["EXSA_CHECK_HEADERS"] = "authorization=Bearer%20secret-token"
        more = "headers_env = 'EXSA_CHECK_HEADERS'\nresource = { 'deployment.environment.name' = 'check' }"
        server = configured(receiver.url, more)
        outer = answer_and_check(server, receiver)
        line = json.loads(server.logged('"traced-1"'))
        assert (line["trace_id"], line["span_id"]) == (TRACE, outer.span_id.hex()), line
        assert receiver.resource["service.name"] == "exsa-server", receiver.resource
        assert receiver.resource["deployment.environment.name"] == "check", receiver.resource
        sent = {name.lower(): value for name, value in receiver.headers[0].items()}
        assert sent["authorization"] == "Bearer secret-token", sent
        assert server.stop() == 0
        assert not any("secret-token" in line for line in server.lines)

    @check("telemetry: a client that leaves, and spans that wait when the server ends")
    def telemetry_gone(_):
        receiver = Receiver()
        server = Configured(f"[telemetry]\nendpoint = '{receiver.url}'\ninterval = '1h'\n")
        open_stream(server, ENDLESS).close()
        server.wait_for("exsa_http_in_flight", 1)
        assert not receiver.spans
        assert server.stop() == 0
        outer = receiver.span("POST /v1/completions")
        inner = next(span for span in receiver.spans if span.parent_span_id == outer.span_id)
        assert attributes(outer)["error.type"] == attributes(inner)["error.type"] == "client_gone"
        assert attributes(inner)["gen_ai.usage.output_tokens"] > 0


if READS and has("rotel"):

    @check("telemetry: spans pass through Rotel, a collector")
    def telemetry_collector(_):
        receiver, port, grpc = Receiver(), free_port(), free_port()
        agent = pathlib.Path(importlib.import_module("rotel").__file__).parent / "rotel-agent"
        with tempfile.TemporaryDirectory() as folder:
            command = [
                agent, "start", "--pid-file", f"{folder}/pid", "--log-file", f"{folder}/log",
                "--otlp-http-endpoint", f"127.0.0.1:{port}", "--otlp-grpc-endpoint", f"127.0.0.1:{grpc}",
                "--exporter", "otlp", "--otlp-exporter-protocol", "http",
                "--otlp-exporter-endpoint", receiver.url, "--batch-timeout", "100ms",
            ]
            with open(f"{folder}/out", "wb") as out:
                collector = subprocess.Popen(command, stdout=out, stderr=out)
            server = configured(f"http://127.0.0.1:{port}")
            try:
                answer_and_check(server, receiver)
                assert server.metric("exsa_telemetry_exported_spans_total") >= 2
                assert server.stop() == 0
            finally:
                server.process.kill()
                collector.terminate()
                collector.wait(timeout=20)
