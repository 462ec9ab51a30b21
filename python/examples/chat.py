"""Streams an answer, then several at once on one event loop: python chat.py MODEL.gguf"""

import asyncio
import sys

import exsa


async def several(engine: exsa.Engine) -> None:
    subjects = ["a frog", "a cat", "a bird"]
    asks = (engine.complete_async(f"Tell me a story about {subject}.", max_tokens=40) for subject in subjects)
    for subject, completion in zip(subjects, await asyncio.gather(*asks)):
        print(f"\n{subject}: {completion.text}")


def main() -> None:
    with exsa.Engine(sys.argv[1], context_tokens=512) as engine:
        for piece in engine.submit("Tell me a story about a frog.", max_tokens=60, seed=1):
            print(piece, end="", flush=True)
        print()
        asyncio.run(several(engine))


if __name__ == "__main__":
    main()
