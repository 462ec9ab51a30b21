"""Long checks: many streams for minutes, each compared with its greedy answer, and the memory of the server."""

import http.client
import json
import os
import random
import threading
import time

from harness import Server, check

STREAMS = 200
SECONDS = float(os.environ.get("EXSA_SOAK_SECONDS", "600"))
WORDS = "cat dog bird tree house river stone girl boy king queen apple boat star moon sun fish mouse".split()
PROMPTS = [f"One day a {a} and a {b}" for a in WORDS for b in WORDS if a != b]
TOKENS = 40


def resident(pid):
    """Resident memory of a process in bytes."""
    with open(f"/proc/{pid}/statm") as statm:
        return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def stream(connection, prompt):
    """The text of a streamed answer, and its number of events."""
    body = dict(prompt=prompt, max_tokens=TOKENS, temperature=0, stream=True)
    connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
    response = connection.getresponse()
    assert response.status == 200, (response.status, response.read())
    text, done = "", False
    for line in response:
        if not line.startswith(b"data: "):
            continue
        data = line[6:].strip()
        if data == b"[DONE]":
            done = True
            continue
        chunk = json.loads(data)
        assert "error" not in chunk, chunk
        text += "".join(choice["text"] for choice in chunk["choices"])
    assert done, "the stream has no end"
    return text


@check("200 streams for minutes: each text is its greedy answer, memory is flat", quick=False)
def soak(_):
    server = Server("--sequences", "64", "--queue", "4096")
    one = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
    truth = {prompt: stream(one, prompt) for prompt in PROMPTS}
    assert len(set(truth.values())) > len(PROMPTS) // 4, "the answers differ too little to tell them apart"
    end, errors, served = time.monotonic() + SECONDS, [], [0] * STREAMS

    def run(index):
        choose = random.Random(index)
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=120)
        try:
            while time.monotonic() < end and not errors:
                prompt = choose.choice(PROMPTS)
                text = stream(connection, prompt)
                assert text == truth[prompt], (prompt, text, truth[prompt])
                served[index] += 1
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(STREAMS)]
    for thread in threads:
        thread.start()
    samples = []
    while time.monotonic() < end and not errors:
        time.sleep(min(5.0, SECONDS / 40))
        samples.append(resident(server.process.pid))
    for thread in threads:
        thread.join()
    assert not errors, errors[:3]
    assert min(served) > 0, "a stream was never served"
    # The first tenth fills caches and allocator pools.
    settled = samples[len(samples) // 10 :]
    third = len(settled) // 3
    early, late = (sorted(part)[len(part) // 2] for part in (settled[:third], settled[-third:]))
    print(f"  {sum(served)} answers, resident {early >> 20} MiB, then {late >> 20} MiB")
    assert late <= early + max(early // 50, 8 << 20), f"memory grew from {early} to {late} bytes"
    assert server.stop() == 0
