"""The OpenAPI document against the running server: schemathesis for five minutes, and official examples."""

import json
import os
import pathlib
import subprocess
import sys
import time

from harness import check

SECONDS = int(os.environ.get("EXSA_SCHEMATHESIS_SECONDS", "300"))
CHECKS = [
    "not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance",
    "response_headers_conformance",
]

# Ollama's API needs the name of a model: the built-in one's.
MODEL = "exsa-tiny"
EXAMPLES = {
    "/v1/chat/completions": {
        "messages": [
            {"role": "developer", "content": "You are a helpful assistant."},
            {"role": "user", "content": [{"type": "text", "text": "Hello!"}]},
        ],
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "get_current_weather",
                    "description": "Get the current weather in a given location",
                    "parameters": {"type": "object", "properties": {"location": {"type": "string"}}, "required": ["location"]},
                },
            }
        ],
        "tool_choice": "auto",
        "max_completion_tokens": 10,
    },
    "/v1/completions": {"prompt": "Say this is a test", "max_tokens": 7, "temperature": 0},
    "/v1/responses": {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "Tell me a three sentence story."}]}],
        "max_output_tokens": 10,
        "reasoning": {"effort": "high"},
    },
    "/v1/messages": {"max_tokens": 10, "messages": [{"role": "user", "content": "Hello, world"}]},
    "/api/generate": {"model": MODEL, "prompt": "Why is the sky blue?", "stream": False, "options": {"num_predict": 10}},
    "/api/chat": {"model": MODEL, "messages": [{"role": "user", "content": "Why?"}], "stream": False, "options": {"num_predict": 10}},
    "/completion": {"prompt": "Building a website can be done in 10 simple steps:", "n_predict": 16},
    "/v1/tokenize": {"content": "Hello world!"},
}


def resolved(schema, document):
    return {**schema, "components": document["components"]}


@check("jsonschema: examples of the APIs are valid, and so are their answers")
def examples(server):
    import jsonschema

    document = json.loads(server.request("GET", "/openapi.json")[1])
    for path, body in EXAMPLES.items():
        operation = document["paths"][path]["post"]
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator(resolved(schema, document)).validate(body)
        response, text = server.request("POST", path, body)
        assert response.status == 200, (path, text)
        schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema.Draft202012Validator(resolved(schema, document)).validate(json.loads(text))


@check("schemathesis: neither a 5xx nor a violation of a schema in five minutes", quick=False)
def schemathesis(server):
    tool = pathlib.Path(sys.executable).parent / "schemathesis"
    log = pathlib.Path("target/test-server/schemathesis.log")
    end, rounds, seed = time.monotonic() + SECONDS, 0, 1
    while time.monotonic() < end:
        command = [
            tool, "run", f"http://127.0.0.1:{server.port}/openapi.json", "--checks", ",".join(CHECKS),
            "--phases", "examples,coverage,fuzzing", "--max-examples", "25", "--seed", str(seed),
            "--request-timeout", "60", "--no-color",
            # Without models there is nothing to test, and the stream of changes has no end.
            "--exclude-path-regex", "^/v1/(models/(events|load|unload|reload|sleep|wake|active|cancel)|config|keys)",
            # Failures are printed at the end alone, which a round that is cut off does not reach.
            "--max-failures", "1", "--suppress-health-check", "all",
        ]
        with log.open("wb") as output:
            try:
                code = subprocess.run(
                    command, stdout=output, stderr=subprocess.STDOUT, cwd=log.parent,
                    timeout=max(end - time.monotonic(), 30),
                ).returncode
            except subprocess.TimeoutExpired:
                code = 0
        assert code == 0, f"see {log}: {log.read_text()[-2000:]}"
        rounds, seed = rounds + 1, seed + 1
    response, _ = server.request("GET", "/health/ready")
    assert response.status == 200 and rounds > 0
