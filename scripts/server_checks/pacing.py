"""Speed of running streams while another model is loaded, with and without pacing."""

import json
import os
import pathlib
import shutil
import threading
import time

from harness import Server, check

TINY = pathlib.Path("models/exsa-tiny-q8_0.gguf")
FOLDER = pathlib.Path("target/test-server/pacing").resolve()
# A model whose load takes a second or more at full speed; scripts/get-smollm2 fetches it.
LARGE = pathlib.Path(
    os.environ.get("EXSA_SMOLLM2", pathlib.Path.home() / ".cache/exsa/models/SmolLM2-135M-Instruct.Q4_1.gguf")
)
STREAMS, SECONDS, TRIES = 4, 6.0, 3
# Streams are promised 90 % of their speed; the rest is slack for the noise of a shared machine.
KEPT_MIN = 0.8


class Traffic:
    """Streams of the small model that never pause."""

    def __init__(self, server):
        self.server, self.stop, self.errors = server, threading.Event(), []
        self.threads = [threading.Thread(target=self.run, args=(index,)) for index in range(STREAMS)]
        for thread in self.threads:
            thread.start()

    def run(self, index):
        body = {"model": "tiny", "prompt": f"One day {index}", "max_tokens": 400, "ignore_eos": True}
        while not self.stop.is_set():
            response, text = self.server.request("POST", "/v1/completions", body)
            if response.status != 200:
                self.errors.append((response.status, text))
                return

    def end(self):
        self.stop.set()
        for thread in self.threads:
            thread.join()
        assert not self.errors, self.errors[0]

    def tokens(self):
        _, text = self.server.request("GET", "/v1/stats")
        return json.loads(text)["totals"]["tokens_generated"]

    def speed(self, seconds, active=lambda: True):
        """Tokens per second over `seconds`, or for as long as `active` holds."""
        before, begun = self.tokens(), time.monotonic()
        while time.monotonic() - begun < seconds and active():
            time.sleep(0.05)
        return (self.tokens() - before) / (time.monotonic() - begun)


def kept(keep_streams):
    """The share of their speed that streams keep while the large model is loaded again and again."""
    config = FOLDER / "exsa.toml"
    config.write_text(
        f'[models]\nfolders = ["{FOLDER}"]\nkeep_streams = {keep_streams}\nactive = "tiny"\n'
        '[models.tiny]\nload = true\n[models.large]\n'
    )
    server = Server("--config", str(config))
    traffic = Traffic(server)
    ended, loads = threading.Event(), []

    def load():
        while not ended.is_set():
            for act in ("load", "unload"):
                response, text = server.request("POST", f"/v1/models/{act}", {"model": "large"})
                if response.status != 200 and not ended.is_set():
                    loads.append((act, response.status, text))
                    return

    try:
        # Caches and clocks settle first.
        traffic.speed(2)
        before = traffic.speed(SECONDS)
        loader = threading.Thread(target=load)
        loader.start()
        time.sleep(0.2)
        during = traffic.speed(SECONDS)
        ended.set()
        server.request("POST", "/v1/models/cancel", {"model": "large"})
        loader.join()
        after = traffic.speed(SECONDS)
    finally:
        ended.set()
        traffic.end()
        server.stop()
    assert not loads, loads[0]
    # The undisturbed speed before and after: a machine that is slowed down in between is noticed.
    return during / ((before + after) / 2), abs(before - after) / max(before, after)


@check("models: streams keep 80 % of their speed and more beside a paced load", quick=False)
def pacing(_):
    if not LARGE.exists():
        print(f"  skipped: {LARGE} is not there; scripts/get-smollm2 fetches it")
        return
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    shutil.copy(TINY, FOLDER / "tiny.gguf")
    shutil.copy(LARGE, FOLDER / "large.gguf")
    shares = []
    for _ in range(TRIES):
        share, drift = kept(0.9)
        shares.append(share)
        print(f"  paced: streams keep {share:.0%} (undisturbed speed drifts by {drift:.0%})")
        if share >= KEPT_MIN:
            break
    share, drift = kept(0.0)
    print(f"  at full speed: streams keep {share:.0%} (undisturbed speed drifts by {drift:.0%})")
    assert max(shares) >= KEPT_MIN, f"streams keep {max(shares):.0%} at most in {TRIES} tries"
