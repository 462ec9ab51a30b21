"""Loading, requests, tokens, vectors, adapters, errors."""

import gc
import inspect
import json
import threading

import exsa
import pytest

FROG = "Tell me a story about a frog."


def test_streamed_and_whole_answers_are_equal(engine):
    answer = engine.submit(FROG, max_tokens=24, seed=7)
    assert answer.finish_reason is None and answer.usage is None and answer.seed is None
    pieces = list(answer)
    assert len(pieces) > 1 and all(pieces)
    whole = engine.complete([{"role": "user", "content": FROG}], max_tokens=24, seed=7)
    assert whole.text == "".join(pieces)
    assert whole.finish_reason == answer.finish_reason == "length"
    assert whole.seed == answer.seed == 7
    assert whole.usage.completion_tokens == 24
    assert whole.usage.prompt_tokens == engine.count_tokens(FROG)
    assert 0 < whole.usage.time_to_first_token <= whole.usage.total_time
    assert list(answer) == []


def test_prompts_are_continued_without_a_template(engine):
    text = "Once upon a time"
    tokens = engine.tokenize(text)
    assert engine.count_tokens(prompt=tokens) == len(tokens) < engine.count_tokens(text)
    assert engine.complete(prompt=text, max_tokens=8, seed=1).text
    assert engine.complete(prompt=tokens, max_tokens=8, seed=1).usage.prompt_tokens == len(tokens)


def test_tokens_and_text(engine):
    text = "The cat sat on the mat."
    assert engine.detokenize(engine.tokenize(text)) == text
    assert engine.vocabulary_size > 100
    assert engine.context_tokens == 256
    assert engine.model_name


def test_stop_strings(engine):
    whole = engine.complete(FROG, max_tokens=24, temperature=0).text
    stop = whole[8:11]
    cut = engine.complete(FROG, max_tokens=24, temperature=0, stop=stop)
    assert cut.text == whole[: whole.index(stop)] and cut.finish_reason == "stop"
    assert engine.complete(FROG, max_tokens=24, temperature=0, stop=["#", stop]).text == cut.text


def test_json_schema(engine):
    schema = {"type": "object", "properties": {"green": {"type": "boolean"}}, "required": ["green"],
              "additionalProperties": False}
    text = engine.complete("Is a frog green?", json_schema=schema, max_tokens=60, seed=1).text
    assert isinstance(json.loads(text)["green"], bool)


def test_events_have_what_the_text_leaves_out(engine):
    events = list(engine.submit(FROG, max_tokens=6, seed=7, logprobs=True, top_logprobs=2).events())
    tokens = [event for event in events if event["type"] == "token"]
    assert events[-1]["type"] == "finished"
    assert sum(token["id"] is not None for token in tokens) == 6
    assert all(len(token["top_logprobs"]) == 2 for token in tokens if token["id"] is not None)
    text = "".join(token["text"] for token in tokens) + events[-1]["text"]
    assert text == engine.complete(FROG, max_tokens=6, seed=7).text


def test_a_timeout_gives_none(engine):
    answer = engine.submit(FROG, max_tokens=8, seed=7)
    pieces = []
    while (piece := answer.next_piece(timeout=0)) != "":
        if piece is not None:
            pieces.append(piece)
    assert "".join(pieces) == engine.complete(FROG, max_tokens=8, seed=7).text
    with pytest.raises(ValueError, match="timeout"):
        answer.next_piece(timeout=-1)


def test_cancel(engine):
    answer = engine.submit(FROG, max_tokens=200)
    next(answer)
    answer.cancel()
    assert answer.complete().finish_reason == "cancelled"
    answer.cancel()


def test_cancel_from_another_thread(engine):
    answer = engine.submit(FROG, max_tokens=200)
    thread = threading.Thread(target=answer.cancel)
    thread.start()
    assert answer.complete().finish_reason in ("cancelled", "length", "stop")
    thread.join()


def test_threads_share_an_engine(engine):
    expected = engine.complete(FROG, max_tokens=16, seed=3).text
    texts = [None] * 4

    def ask(index):
        texts[index] = engine.complete(FROG, max_tokens=16, seed=3).text

    threads = [threading.Thread(target=ask, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [expected] * 4


def test_other_threads_run_while_one_waits(engine):
    # The reader waits in the engine; a thread that holds the interpreter meanwhile counts on.
    answer = engine.submit(FROG, max_tokens=100, seed=1)
    counted = 0
    done = threading.Event()

    def read():
        answer.complete()
        done.set()

    thread = threading.Thread(target=read)
    thread.start()
    while not done.is_set():
        counted += 1
    thread.join()
    assert counted > 0


def test_vectors(engine):
    first, second, third = engine.embed(["a frog", "a toad", "a frog"])
    assert len(first) == engine.embedding_width
    assert first == third != second
    assert sum(value * value for value in first) == pytest.approx(1, abs=1e-3)
    with pytest.raises(TypeError):
        engine.embed("a frog")


def test_adapters(engine, adapter):
    queen = "Tell me a story about a queen."
    plain = engine.complete(queen, max_tokens=24, seed=7).text
    engine.load_adapter("alice", adapter)
    with pytest.raises(exsa.LoadError, match="already loaded"):
        engine.load_adapter("alice", adapter)
    adapted = engine.complete(queen, max_tokens=24, seed=7, adapters=["alice"]).text
    assert adapted != plain
    assert engine.complete(queen, max_tokens=24, seed=7, adapters={"alice": 0.0}).text == plain
    engine.unload_adapter("alice")
    with pytest.raises(exsa.RefusedError, match="alice"):
        engine.submit(queen, adapters=["alice"])
    with pytest.raises(TypeError):
        engine.submit(queen, adapters="alice")


def test_load_errors(model, tmp_path):
    with pytest.raises(exsa.LoadError, match="no-such-model.gguf"):
        exsa.Engine("no-such-model.gguf")
    with pytest.raises(exsa.LoadError):
        exsa.Engine(b"GGUF and nothing else")
    with pytest.raises(exsa.LoadError, match="bytes"):
        exsa.Engine(model, memory_max=1000)
    with pytest.raises(ValueError, match="available: f32, f16"):
        exsa.Engine(model, kv_type="q3")
    with pytest.raises(ValueError, match="available: candle"):
        exsa.Engine(model, backend="abacus")
    assert issubclass(exsa.LoadError, exsa.Error)


def test_bad_requests(engine):
    with pytest.raises(exsa.RefusedError, match="top_p"):
        engine.submit(FROG, top_p=-1.0)
    with pytest.raises(exsa.RefusedError):
        engine.submit(prompt=[])
    with pytest.raises(ValueError, match="either messages or a prompt"):
        engine.submit()
    with pytest.raises(ValueError, match="either messages or a prompt"):
        engine.submit(FROG, prompt=FROG)
    with pytest.raises(ValueError, match="request: "):
        engine.submit(FROG, max_tokens="many")
    with pytest.raises(ValueError):
        engine.submit(FROG, temperature=float("nan"))
    with pytest.raises(ValueError):
        engine.submit("half a surrogate pair: \ud800")


def test_a_full_queue(model):
    with exsa.Engine(model, sequences=1, queue=1) as engine:
        answers = []
        with pytest.raises(exsa.QueueFullError):
            for _ in range(256):
                answers.append(engine.submit(FROG, ignore_eos=True))
        assert answers


def test_memory_kv_type_and_close(model):
    engine = exsa.Engine(model.read_bytes(), context_tokens=128, kv_type="q8_0", mode="latency", batch_tokens=64)
    assert engine.context_tokens == 128
    answer = engine.submit(FROG, max_tokens=12)
    engine.close()
    engine.close()
    with pytest.raises(ValueError, match="closed"):
        engine.submit(FROG)
    # Its answers go on.
    assert answer.complete().usage.completion_tokens == 12


def test_dropping_an_answer_frees_its_place(model):
    with exsa.Engine(model, sequences=1, queue=2) as engine:
        for _ in range(6):
            engine.submit(FROG)
            gc.collect()
        assert engine.complete(FROG, max_tokens=4).usage.completion_tokens == 4


def test_signatures_have_types():
    for function in (exsa.Engine.__init__, exsa.Engine.submit, exsa.Answer.next_piece):
        signature = inspect.signature(function)
        named = [p for name, p in signature.parameters.items() if name != "self"]
        assert all(parameter.annotation is not inspect.Parameter.empty for parameter in named)
