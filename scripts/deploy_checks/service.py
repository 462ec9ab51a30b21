"""The systemd unit and the container file."""

import json
import os
import pathlib
import re
import shutil
import subprocess

from harness import ARGS, DEPLOY, FOLDER, Server, Skipped, check, completion, program, run

UNIT = DEPLOY / "systemd" / "exsa-server.service"
CONTAINERFILE = DEPLOY / "container" / "Containerfile"


@check("systemd: the unit is valid")
def verify():
    analyze = program("systemd-analyze")
    copy = FOLDER / UNIT.name
    # The check wants the program to be there.
    copy.write_text(UNIT.read_text().replace("/usr/local/bin/exsa-server", os.path.abspath(ARGS.binary)))
    said = run(analyze, "verify", copy)
    assert UNIT.name not in said, said


@check("systemd: the exposure of the unit is at most 2.0 of 10")
def security():
    said = run(program("systemd-analyze"), "security", "--offline=true", "--threshold=20", UNIT)
    return "ok: " + re.search(r"level for exsa-server.service: ([\d.]+)", said)[1]


@check("systemd: the time to stop is longer than the drain of exsa.toml")
def stop_time():
    limit = int(re.search(r"TimeoutStopSec=(\d+)s", UNIT.read_text())[1])
    drain = re.search(r"\[drain\]\ndelay = \"(\d+)s\".*\ntimeout = \"(\d+)s\"", (DEPLOY / "exsa.toml").read_text())
    seconds = int(drain[1]) + int(drain[2])
    assert limit > seconds + 10, f"{limit} s for a drain of {seconds} s"


@check("exsa.toml: the server accepts it, and starts with it")
def configuration():
    folder = FOLDER / f"state-{os.getpid()}"
    for name in ["keys", "audit", "models"]:
        (folder / name).mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.copy(next(pathlib.Path("models").glob("**/*.gguf")), folder / "models" / "story.gguf")
    text = (DEPLOY / "exsa.toml").read_text().replace("/var/lib/exsa", str(folder))
    file = folder / "exsa.toml"
    file.write_text(text)
    run(ARGS.binary, "--config", file, "--check-config")
    made = ["key", "new", "--data", folder / "keys", "--name", "admin"]
    key = run(ARGS.binary, *made, "--scope", "infer", "--scope", "models").split()[-1]
    with Server("--config", str(file)) as server:
        assert server.request("GET", "/v1/models")[0] == 401
        status, answer = server.request("POST", "/v1/completions", {**completion(4), "model": "story"}, key=key)
        assert status == 200, answer


@check("container: the health check tells a server that lives")
def health():
    line = re.search(r"HEALTHCHECK.*?CMD (\[.*?\])\n", CONTAINERFILE.read_text(), re.DOTALL)[1]
    command = json.loads(line)
    with Server() as server:
        mine = [part.replace("8080", str(server.port)) for part in command]
        run(*mine)
    gone = subprocess.run(mine, stderr=subprocess.DEVNULL)
    assert gone.returncode != 0


@check("container: the image is built and serves")
def image():
    builder = shutil.which("podman") or shutil.which("docker")
    if builder is None:
        raise Skipped("neither podman nor docker is there")
    try:
        run(builder, "pull", "docker.io/library/debian:bookworm-slim")
    except AssertionError as error:
        raise Skipped("the base images cannot be fetched") from error
    run(builder, "build", "-f", CONTAINERFILE, "-t", "exsa-server-check", ".")
    run(builder, "run", "--rm", "exsa-server-check", "--version")
