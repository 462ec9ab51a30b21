"""The command `exsa` in a terminal: first run, chat, stop, downloads, and all that can be wrong with them."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, os.path.dirname(__file__))
from hub import Hub  # noqa: E402
from terminal import Terminal  # noqa: E402

MCP_SERVER = os.path.realpath(os.path.join(os.path.dirname(__file__), "../../exsa-cli/tests/mcp_server.sh"))
MODEL = os.path.join(os.path.dirname(__file__), "../../models/exsa-tiny-q8_0.gguf")


def check(name, holds, screen=""):
    print(f"{'ok' if holds else 'FAILED'}: {name}", flush=True)
    if not holds:
        raise SystemExit(f"{name}\n{screen}")


def first_run(term, exsa):
    screen, code = term.run(f"{exsa} run builtin 'Once upon a time' -n 20 --seed 1 --threads 1")
    answer = screen.split("code:")[-2]
    check("a prompt is answered", code == 0 and len(answer.splitlines()[-1].strip() or answer) > 10, screen)


def chat(term, exsa):
    term.clear()
    term.type(f"{exsa} run; echo \"code:$?:\"")
    screen = term.expect("/help lists the commands.")
    check("a chat on a fresh machine says how to get a better model", "exsa pull" in screen, screen)
    term.type("/set seed 1")
    term.type("/set max_tokens 12")
    term.type("Tell me a story about a frog.")
    # A prompt after the answer: the fourth. The blank behind it is not on the screen.
    screen = term.expect("\n>", times=4)
    term.type("/set")
    term.expect("max_tokens")
    check("messages are answered", "Tell me a story" in screen, screen)
    term.type("/set max_tokens 100000")
    term.expect("max_tokens is 100000")
    term.type("/set ignore_eos true")
    term.expect("ignore_eos is true")
    before = term.screen()
    term.type("Once upon a time")
    # Part of an answer that would not end for a long time.
    for _ in range(600):
        screen = term.screen()
        if len(screen) > len(before) + 300:
            break
        time.sleep(0.1)
    check("an answer streams", len(screen) > len(before) + 300, screen)
    term.key("C-c")
    term.type("/help")
    screen = term.expect("/regenerate")
    check("Ctrl-C stops the answer and not the chat", "code:" not in screen.split("/help")[-1], screen)
    term.key("C-d")
    screen, code = term.code()
    check("Ctrl-D ends the chat", code == 0, screen)


def resume(term, exsa, hub, home):
    pull = f"{exsa} pull hf:org/tiny --allow-http --endpoint {hub.url}"
    hub.slow = True
    term.clear()
    term.type(f"{pull}; echo \"code:$?:\"")
    screen = term.expect("tiny-Q8_0.gguf")
    term.expect("MiB/")
    check("progress fits into 80 columns", term.lines_max() <= 80, screen)
    term.key("C-c")
    screen, code = term.code()
    hub.slow = False
    check("Ctrl-C stops a download with code 130", code == 130 and "continue" in screen.replace("\n", ""), screen)
    hub.ranges.clear()
    screen, code = term.run(pull)
    check("the same command continues it", code == 0 and hub.ranges and hub.ranges[0][0] > 0, f"{hub.ranges}\n{screen}")
    path = os.path.join(home, "hub/models--org--tiny/blobs", hub.digest)
    check("the file is whole", open(path, "rb").read() == hub.model)
    screen, code = term.run(f"{exsa} run hf:org/tiny 'Once upon a time' -n 8 --seed 1")
    check("a fetched model answers", code == 0, screen)
    screen, code = term.run(f"{exsa} list")
    check("it is listed", code == 0 and "hf:org/tiny:Q8_0" in screen, screen)
    screen, code = term.run(f"{exsa} rm hf:org/tiny")
    check("it is removed", code == 0 and not os.path.exists(path), screen)
    hub.cut = 0.5
    screen, code = term.run(f"{pull} 2>&1 | tail -n 3; (exit ${{PIPESTATUS[0]}})")
    check("a download goes on by itself when connections break", code == 0 and os.path.exists(path), screen)
    screen, code = term.run(f"{exsa} rm hf:org/tiny")
    hub.cut = 0.0
    screen, code = term.run(f"{pull} 2>&1 | tail -n 3; (exit ${{PIPESTATUS[0]}})")
    hub.cut = None
    check("a download that always breaks off ends with an error", code == 1 and "runagain" in re.sub(r"\s", "", screen), screen)
    screen, code = term.run(f"{exsa} rm --incomplete")
    check("its rest is removed", code == 0 and ".part" in screen, screen)


def wrong_file(term, exsa, folder):
    path = os.path.join(folder, "page.gguf")
    with open(path, "w", encoding="utf-8") as file:
        file.write("<!DOCTYPE html><html>\n" * 100)
    screen, code = term.run(f"{exsa} run {path} hello")
    check("a file that is no model is refused", code == 1 and "page.gguf" in screen and "panicked" not in screen, screen)
    screen, code = term.run(f"{exsa} run no-such-file.gguf hello")
    check("a missing file is told, with what to do", code == 1 and "exsa pull" in screen.replace("\n", ""), screen)


def no_space(term, exsa, hub, folder):
    place = os.path.join(folder, "small")
    os.makedirs(place, exist_ok=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place], check=False, capture_output=True, text=True
    )
    if mounted.returncode != 0:
        print(f"skipped: a disk without space: {mounted.stderr.strip()}")
        return
    try:
        command = f"HF_HOME={place} {exsa} pull hf:org/tiny --allow-http --endpoint {hub.url}"
        hub.ranges.clear()
        screen, code = term.run(command)
        text = screen.replace("\n", "")
        check("a disk without space is told before the download", code == 1 and "are needed" in text, screen)
        check("nothing was fetched for it", not hub.ranges, f"{hub.ranges}")
    finally:
        subprocess.run(["umount", place], check=False)


def no_rights(term, exsa, hub, folder):
    place = os.path.join(folder, "locked")
    os.makedirs(place, exist_ok=True)
    os.chmod(place, 0o500)
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        print("skipped: a folder without rights: root may write everywhere, and setpriv is not there")
        return
    drop = "setpriv --reuid 65534 --regid 65534 --clear-groups" if os.geteuid() == 0 else "env"
    os.chmod(folder, 0o711)
    program = os.path.join(folder, "exsa")
    shutil.copy(exsa, program)
    os.chmod(program, 0o755)
    screen, code = term.run(f"HF_HOME={place} {drop} {program} pull hf:org/tiny --allow-http --endpoint {hub.url}")
    text = screen.replace("\n", "")
    check("a folder without rights is told", code == 1 and re.search("ermission denied", text) is not None, screen)
    os.chmod(place, 0o700)


def tools(term, exsa):
    forced = "--set tool_choice=required -n 64 --seed 1 --threads 1"
    term.clear()
    term.type(f"{exsa} run builtin 'Weather?' --mcp \"sh {MCP_SERVER}\" {forced}; echo \"code:$?:\"")
    screen = term.expect("run it?")
    check("a call of a tool is shown before it runs", "tool weather" in screen and "Bern" in screen, screen)
    term.type("perhaps")
    term.expect("run it?", times=2)
    term.type("n")
    screen, code = term.code()
    check("a call can be refused", code == 0 and "refused" in screen, screen)
    term.clear()
    term.type(f"{exsa} run builtin --mcp \"sh {MCP_SERVER}\" {forced}; echo \"code:$?:\"")
    screen = term.expect("/help lists the commands.")
    check("the tools of a chat are listed", "weather" in screen, screen)
    term.type("Weather?")
    term.expect("run it?")
    term.type("always")
    screen = term.expect("\n>", times=2)
    term.type("And now?")
    screen = term.expect("\n>", times=3)
    check("a tool that is always allowed is not asked for again", screen.count("run it?") == 1, screen)
    check("it was called twice", screen.count("tool weather") == 2, screen)
    term.key("C-d")
    screen, code = term.code()
    check("a chat with tools ends", code == 0, screen)
    screen, code = term.run(f"{exsa} run builtin 'Weather?' --mcp \"sh {MCP_SERVER} gone\"")
    check("a server that ends at once is told", code == 1 and "no licence" in screen.replace("\n", ""), screen)


def matrix(term, exsa, folder):
    text, out, small = (os.path.join(folder, name) for name in ("text.txt", "matrix.gguf", "small.gguf"))
    with open(text, "w", encoding="utf-8") as file:
        file.write("Once upon a time there was a little frog who lived by a big pond. " * 20000)
    term.clear()
    term.type(f"{exsa} imatrix builtin {text} -o {out} --context 64 --threads 1; echo \"code:$?:\"")
    for _ in range(1200):
        screen = term.screen()
        if re.search(r"chunk [1-9]\d*/", screen):
            break
        time.sleep(0.1)
    check("progress of a matrix fits into 80 columns", "chunk" in screen and term.lines_max() <= 80, screen)
    term.key("C-c")
    screen, code = term.code()
    kept = re.sub(r"\s", "", screen)
    check("Ctrl-C keeps the chunks that are computed", code == 130 and "stoppedafter" in kept and os.path.exists(out), screen)
    screen, code = term.run(f"{exsa} quantize {MODEL} {small} Q4_0 --allow-requantize --imatrix {out}")
    check("their matrix quantizes", code == 0 and os.path.exists(small), screen)


def main():
    exsa = sys.argv[1]
    folder = tempfile.mkdtemp(prefix="exsa-terminal-")
    home = os.path.join(folder, "home")
    os.makedirs(home)
    with open(MODEL, "rb") as file:
        hub = Hub(file.read())
    environment = {"HF_HOME": home, "XDG_CACHE_HOME": os.path.join(folder, "cache"), "NO_PROXY": "127.0.0.1"}
    term = Terminal(folder, environment)
    try:
        first_run(term, exsa)
        chat(term, exsa)
        resume(term, exsa, hub, home)
        tools(term, exsa)
        matrix(term, exsa, folder)
        wrong_file(term, exsa, folder)
        no_space(term, exsa, hub, folder)
        no_rights(term, exsa, hub, folder)
    finally:
        term.close()
        shutil.rmtree(folder, ignore_errors=True)


main()
