#!/usr/bin/env python3
"""Renders conversations with chat templates as Hugging Face transformers does, for the tests of exsa-core.

    tools/chat_expected.py TEMPLATES > exsa-core/tests/data/chat_expected.txt

Writes one line for each template (a .jinja file in the folder TEMPLATES) and each conversation of
exsa-core/tests/data/conversations.json: file, conversation, length in bytes and FNV-1a hash (64 bit) of the text, or
"refused" where the template raises an exception, or "error" where it fails otherwise. The templates' texts themselves are not ours to store. `--show FILE CONVERSATION` prints a text instead.
`--snippets` fills in what is expected of the small templates in exsa-core/tests/data/snippets.json, which are ours.

Needs Jinja2. The environment is set up as in `transformers.utils.chat_template_utils`: sandboxed, with trim_blocks,
lstrip_blocks, loop controls, tojson, raise_exception and strftime_now.
"""

import datetime
import json
import pathlib
import sys

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

NOW = datetime.datetime(2025, 3, 9, 8, 5, 7, tzinfo=datetime.timezone.utc)


SNIPPETS = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": " Hi there\n"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye"},
    ],
    "variables": {
        "x": {
            "text": "Some Text",
            "int": 42,
            "float": 1.5,
            "small": 1e-7,
            "large": 1e22,
            "bool": True,
            "none": None,
            "list": [1, "two", 3.0],
            "dict": {"a": 1, "b": [2, 3]},
            "mixed": [None, 1e-7, "it's", True, {"a": [1e22, "\n"]}, "\u00ad\u200b\u0301é"],
            "nested": {"k": ["it's", {"deep": None}], "ü": "é\n"},
            "shadow": {"items": 1, "get": 2, "keys": 3},
            "shuffled": {"b": {"z": 1, "y": 2}, "a": 0},
            "people": [
                {"name": "Ann", "age": 41, "team": "b"},
                {"name": "Bob", "age": 23, "team": "a"},
                {"name": "Cyd", "age": 35, "team": "b"},
            ],
        }
    },
}


class Refused(Exception):
    """What raise_exception raises."""


class Generation(jinja2.ext.Extension):
    """The block that marks what the model said; its text is unchanged."""

    tags = {"generation"}

    def parse(self, parser):
        lineno = next(parser.stream).lineno
        body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
        return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(lineno)

    def _body(self, caller):
        return caller()


def environment():
    def raise_exception(message):
        raise Refused(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def parsed(message):
    """The message with the arguments of its tool calls as mappings where they are JSON text, as vLLM passes them."""
    calls = message.get("tool_calls")
    if not calls:
        return message
    return message | {
        "tool_calls": [
            call | {"function": call["function"] | {"arguments": json.loads(arguments)}}
            if isinstance(arguments := call["function"]["arguments"], str)
            else call
            for call in calls
        ]
    }


def render(source, conversation):
    template = environment().from_string(source)
    return template.render(
        messages=[parsed(message) for message in conversation["messages"]],
        tools=conversation.get("tools"),
        documents=None,
        add_generation_prompt=conversation.get("add_generation_prompt", True),
        bos_token="<BOS>",
        eos_token="<EOS>",
        **conversation.get("variables", {}),
    )


def fnv1a(data):
    value = 0xCBF29CE484222325
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 % 2**64
    return value


def main():
    root = pathlib.Path(__file__).resolve().parent.parent
    conversations = json.loads((root / "exsa-core/tests/data/conversations.json").read_text())
    if sys.argv[1:2] == ["--show"]:
        source = pathlib.Path(sys.argv[2]).read_text()
        conversation = next(c for c in conversations if c["name"] == sys.argv[3])
        sys.stdout.write(render(source, conversation))
        return
    if sys.argv[1:2] == ["--snippets"]:
        path = root / "exsa-core/tests/data/snippets.json"
        snippets = json.loads(path.read_text())
        for snippet in snippets:
            try:
                snippet["expected"] = render(snippet["template"], SNIPPETS)
            except Refused as refused:
                snippet["expected"] = {"refused": str(refused)}
            except Exception:
                snippet["expected"] = None
        path.write_text(json.dumps(snippets, indent=1) + "\n")
        return
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.jinja")):
        for conversation in conversations:
            try:
                data = render(path.read_text(), conversation).encode()
                result = f"{len(data)} {fnv1a(data):016x}"
            except Refused:
                result = "refused"
            except Exception:  # of any kind: templates are programs
                result = "error"
            print(path.name, conversation["name"], result)


if __name__ == "__main__":
    main()
