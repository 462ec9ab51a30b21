"""Asynchronous iteration."""

import asyncio

import exsa
import pytest

FROG = "Tell me a story about a frog."


def test_asynchronous_and_blocking_answers_are_equal(engine):
    async def main():
        return [piece async for piece in engine.submit(FROG, max_tokens=16, seed=7)]

    pieces = asyncio.run(main())
    assert len(pieces) > 1 and all(pieces)
    assert "".join(pieces) == engine.complete(FROG, max_tokens=16, seed=7).text


def test_many_tasks_share_one_thread(engine):
    async def main():
        asks = (engine.complete_async(FROG, max_tokens=12, seed=seed) for seed in range(12))
        return await asyncio.gather(*asks)

    completions = asyncio.run(main())
    assert [completion.seed for completion in completions] == list(range(12))
    assert completions[3].text == engine.complete(FROG, max_tokens=12, seed=3).text


def test_the_loop_runs_while_an_answer_is_awaited(engine):
    async def main():
        turns = 0
        waiting = asyncio.ensure_future(engine.complete_async(FROG, max_tokens=64, seed=1))
        while not waiting.done():
            turns += 1
            await asyncio.sleep(0)
        return turns, await waiting

    turns, completion = asyncio.run(main())
    assert turns > 1 and completion.text


def test_a_cancelled_task_leaves_the_answer_readable(engine):
    async def main():
        answer = engine.submit(FROG, max_tokens=200, seed=1)
        first = await answer.__anext__()
        task = asyncio.ensure_future(answer.complete_async())
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        answer.cancel()
        rest = await answer.complete_async()
        return first, rest

    first, rest = asyncio.run(main())
    assert first and rest.finish_reason == "cancelled"


def test_a_loop_that_is_closed_is_no_error(engine):
    async def main():
        answer = engine.submit(FROG, max_tokens=32, seed=1)
        task = asyncio.ensure_future(answer.complete_async())
        await asyncio.sleep(0)
        task.cancel()
        return answer

    answer = asyncio.run(main())
    # Read on, blocking, after the event loop has gone.
    assert answer.complete().usage.completion_tokens == 32


def test_errors_are_raised_where_the_request_is_made(engine):
    async def main():
        await engine.complete_async(FROG, top_p=-1.0)

    with pytest.raises(exsa.RefusedError):
        asyncio.run(main())
