"""Checks of a server as one replica of a fleet: metrics as a picker reads them, and events of the prefix cache."""

import importlib
import json
import re
import tempfile
import time

from config import Configured, run
from harness import ENDLESS, check, open_stream

# Metrics that llm-d's endpoint picker reads of vLLM, its default engine type; then names that vLLM gave up,
# which production-stack's router still reads.
PICKER = ["vllm:num_requests_waiting", "vllm:num_requests_running", "vllm:kv_cache_usage_perc"]
CACHE = "vllm:cache_config_info"
OLDER = {
    "vllm:gpu_cache_usage_perc": "gauge",
    "vllm:gpu_prefix_cache_hit_rate": "gauge",
    "vllm:gpu_prefix_cache_hits_total": "counter",
    "vllm:gpu_prefix_cache_queries_total": "counter",
}


def families(page):
    """Type, and list of (labels, value), of each metric of a page in Prometheus' text format 0.0.4."""
    types, found = {}, {}
    for line in page.splitlines():
        if kind := re.fullmatch(r"# TYPE (\S+) (\w+)", line):
            types[kind[1]] = kind[2]
        elif line and not line.startswith("#"):
            name, labels, value = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (\S+)', line).groups()
            pairs = dict(re.findall(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\]|\\.)*)"', labels or ""))
            found.setdefault(name, []).append((pairs, float(value)))
    return {name: (types.get(name), samples) for name, samples in found.items()}


def scrape(server):
    response, page = server.request("GET", "/metrics", headers={"Accept": "text/plain;version=0.0.4;q=1,*/*;q=0.1"})
    assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4"), response.headers
    return families(page.decode())


@check("fleet: an endpoint picker finds load, KV use and size of the cache under vLLM's names")
def picker(_):
    server = Configured('[metrics]\naliases = ["vllm"]\n')

    def read():
        found = scrape(server)
        values = []
        for name in PICKER:
            kind, [(labels, value)] = found[name]
            assert kind == "gauge" and labels["engine"] == "0" and labels["model_name"], (name, kind, labels)
            values.append(value)
        return found, values

    found, values = read()
    assert values == [0, 0, 0], values
    kind, [(labels, one)] = found[CACHE]
    size, blocks = int(labels["block_size"]), int(labels["num_gpu_blocks"])
    assert kind == "gauge" and one == 1 and size > 0, labels
    assert size * blocks == server.metric("exsa_kv_tokens_max"), labels
    for name, expected in OLDER.items():
        kind, samples = found[name]
        assert kind == expected and len(samples) == 1, (name, kind)
    # More answers than sequences, so that some wait.
    streams = [open_stream(server, {**ENDLESS, "n": 12}) for _ in range(2)]
    found, [waiting, running, used] = read()
    assert running == 16 and waiting == 8 and 0 < used <= 1, (waiting, running, used)
    assert found["vllm:gpu_cache_usage_perc"][1][0][1] == used
    for stream in streams:
        stream.close()
    assert server.stop() == 0


def has_events():
    """Whether the binary was built with the feature kv-events."""
    return "built without KV events" not in checked("bind = 'tcp://127.0.0.1:5557'")


def checked(settings):
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(f"[fleet.kv_events]\n{settings}\n")
        file.flush()
        return run("--check-config", file=file.name).stderr


def has(*modules):
    try:
        return all(importlib.import_module(module) for module in modules)
    except ImportError:
        return False


class Picker:
    """The blocks of a server, as its events tell them."""

    def __init__(self, endpoint, topic=b"kv@"):
        import zmq

        self.socket = zmq.Context.instance().socket(zmq.SUB)
        self.socket.setsockopt(zmq.SUBSCRIBE, topic)
        self.socket.connect(endpoint)
        # Block to all tokens up to its end.
        self.blocks, self.removed, self.number, self.topics = {}, 0, None, set()

    def take(self, message):
        import msgpack

        topic, number, payload = message
        self.topics.add(topic.decode())
        number = int.from_bytes(number, "big")
        assert self.number is None or number == self.number + 1, (self.number, number)
        self.number = number
        stamp, events, rank = msgpack.unpackb(payload)
        assert abs(stamp - time.time()) < 60 and rank == 0
        for event in events:
            match event["type"]:
                case "BlockStored":
                    parent, size = event["parent_block_hash"], event["block_size"]
                    tokens = [] if parent is None else self.blocks[parent]
                    assert len(event["token_ids"]) == size * len(event["block_hashes"])
                    assert event["medium"] == "GPU" and event["lora_id"] is None
                    for i, block in enumerate(event["block_hashes"]):
                        tokens = tokens + event["token_ids"][i * size : (i + 1) * size]
                        assert block not in self.blocks, "stored twice"
                        self.blocks[block] = tokens
                case "BlockRemoved":
                    self.removed += len(event["block_hashes"])
                    for block in event["block_hashes"]:
                        del self.blocks[block]
                case "AllBlocksCleared":
                    self.blocks.clear()
                case other:
                    raise AssertionError(other)

    def read(self, wanted, seconds=20):
        """Reads until `wanted` holds."""
        end = time.monotonic() + seconds
        while not wanted():
            assert time.monotonic() < end, "the events do not come"
            if self.socket.poll(100):
                self.take(self.socket.recv_multipart())

    def cached(self, tokens):
        """Leading tokens in known blocks, without the last token."""
        known = {tuple(block) for block in self.blocks.values()}
        lengths = [n for n in range(len(tokens)) if tuple(tokens[:n]) in known]
        return max(lengths, default=0)


def replayed(endpoint, number):
    import zmq

    socket = zmq.Context.instance().socket(zmq.DEALER)
    socket.connect(endpoint)
    socket.send_multipart([b"", number.to_bytes(8, "big")])
    messages = []
    while True:
        assert socket.poll(10_000), "the replay does not answer"
        empty, topic, found, payload = socket.recv_multipart()
        assert empty == b""
        if int.from_bytes(found, "big", signed=True) == -1:
            assert topic == payload == b""
            socket.close()
            return messages
        messages.append([topic, found, payload])


BUILT = has_events()
if not BUILT:
    print("skipped: the checks of KV events: the binary was built without the feature kv-events")
elif not has("zmq", "msgpack"):
    print("skipped: the checks of KV events: there are no Python packages pyzmq and msgpack")

if BUILT:

    @check("fleet: KV events are refused on addresses that other machines reach")
    def kv_events_refused(_):
        told = checked("bind = 'tcp://*:5557'")
        assert "fleet.kv_events.bind: 0.0.0.0 is reachable from other machines" in told, told
        assert "reachable" not in checked("bind = 'tcp://*:5557'\ninsecure_no_auth = true")
        told = checked("bind = 'ipc:///tmp/x'")
        assert "'ipc:///tmp/x' is no address" in told, told


if BUILT and has("zmq", "msgpack"):

    @check("fleet: a ZeroMQ subscriber knows which prompts are cached, from the start and by replay")
    def kv_events(_):
        server = Configured(
            "[fleet.kv_events]\nbind = 'tcp://127.0.0.1:0'\nreplay = 'tcp://127.0.0.1:0'\ntopic = 'kv@here@{model}'\n"
            "[engine]\nkv_bytes_max = '768 KiB'\ncontext_tokens_max = 256\nsequences_max = 2\n"
        )
        response, text = server.request("GET", "/kv_event_sources")
        [source] = json.loads(text)
        assert response.status == 200 and source["transport"] == "zmq", source
        picker = Picker(source["endpoint"])
        picker.read(lambda: picker.number is not None)
        matched = 0
        for i in range(60):
            words = ["cat", "dog", "bird", "sea", "house"]
            # Four prompts begin alike, then others: the cache holds some of the beginnings only.
            group = i // 4
            pair = f"The {words[group % 5]} and the {words[group % 3]}"
            prompt = f"{pair} went home to see what the others had found there. " * 2
            prompt += words[i % 4] * 8
            _, text = server.request("POST", "/v1/tokenize", {"content": prompt, "add_special": True})
            tokens = json.loads(text)["tokens"]
            expected = picker.cached(tokens)
            number = picker.number
            _, text = server.request("POST", "/v1/completions", {"prompt": prompt, "max_tokens": 4, "temperature": 0})
            usage = json.loads(text)["usage"]
            assert usage["prompt_tokens"] == len(tokens), (usage, len(tokens))
            cached = usage["prompt_tokens_details"]["cached_tokens"]
            assert cached == expected, f"prompt {i}: {cached} tokens were cached, {expected} by the events"
            matched += cached
            if expected < (len(tokens) - 1) // 16 * 16:
                picker.read(lambda: picker.number != number)
            while picker.socket.poll(50):
                picker.take(picker.socket.recv_multipart())
        assert picker.topics == {source["topic"]} and source["topic"].startswith("kv@here@"), picker.topics
        assert matched > 200 and picker.removed > 0, f"{matched} tokens matched, {picker.removed} blocks removed"
        # A picker that has missed messages takes them from the replay.
        late = Picker(source["endpoint"], b"none")
        for message in replayed(source["replay_endpoint"], 0):
            late.take(message)
        assert (late.number, late.blocks) == (picker.number, picker.blocks)
        assert [int.from_bytes(m[1], "big") for m in replayed(source["replay_endpoint"], late.number)] == [late.number]
        # One that comes late is told all blocks anew.
        other = Picker(source["endpoint"])
        other.read(lambda: other.blocks == picker.blocks)
        assert server.stop() == 0
