"""Checks by the official Python clients of OpenAI, Anthropic and Ollama."""

import json

from harness import CHAT, check


def client(server):
    import openai

    return openai.OpenAI(base_url=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_retries=0)


@check("openai: chat, whole and streamed, agree")
def openai_chat(server):
    api = client(server)
    model = api.models.list().data[0].id
    arguments = dict(model=model, messages=CHAT["messages"], seed=1, max_tokens=40)
    whole = api.chat.completions.create(**arguments)
    options = {"include_usage": True}
    chunks = list(api.chat.completions.create(**arguments, stream=True, stream_options=options))
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == whole.choices[0].message.content and len(text) > 20, text
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens == 40
    assert whole.choices[0].finish_reason == "length"


@check("openai: completions with a list of prompts and log-probabilities")
def openai_completions(server):
    api = client(server)
    model = api.models.list().data[0].id
    answer = api.completions.create(model=model, prompt=["One day", "The dog"], max_tokens=5, logprobs=2, seed=3)
    assert [choice.index for choice in answer.choices] == [0, 1]
    for choice in answer.choices:
        assert len(choice.logprobs.tokens) == 5 and "".join(choice.logprobs.tokens) == choice.text
        assert all(len(top) == 2 for top in choice.logprobs.top_logprobs)


@check("openai: log-probabilities of chat tokens")
def openai_chat_logprobs(server):
    api = client(server)
    model = api.models.list().data[0].id
    answer = api.chat.completions.create(
        model=model, messages=CHAT["messages"], max_tokens=4, logprobs=True, top_logprobs=3, temperature=0
    )
    content = answer.choices[0].logprobs.content
    assert len(content) == 4
    for token in content:
        assert token.logprob == token.top_logprobs[0].logprob, "greedy takes the most probable token"


@check("openai: several answers to one prompt, whole and streamed")
def openai_several_answers(server):
    api = client(server)
    model = api.models.list().data[0].id
    arguments = dict(model=model, messages=CHAT["messages"], seed=7, max_tokens=25, n=3)
    whole = api.chat.completions.create(**arguments)
    texts = [choice.message.content for choice in whole.choices]
    assert len(set(texts)) == 3 and whole.usage.completion_tokens == 75, texts
    streamed = {0: "", 1: "", 2: ""}
    for chunk in api.chat.completions.create(**arguments, stream=True):
        for choice in chunk.choices:
            streamed[choice.index] += choice.delta.content or ""
    assert list(streamed.values()) == texts
    best = api.completions.create(model=model, prompt="One day", seed=7, max_tokens=10, n=1, best_of=4)
    assert len(best.choices) == 1 and best.usage.completion_tokens == 40


@check("openai: an answer by a JSON schema")
def openai_schema(server):
    api = client(server)
    model = api.models.list().data[0].id
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 12}, "legs": {"enum": [2, 4]}},
        "required": ["name", "legs"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "animal", "schema": schema, "strict": True}}
    for seed in range(5):
        answer = api.chat.completions.create(
            model=model, messages=CHAT["messages"], response_format=form, seed=seed, max_tokens=60
        )
        value = json.loads(answer.choices[0].message.content)
        assert set(value) == {"name", "legs"} and value["legs"] in (2, 4) and len(value["name"]) <= 12, value


TOOL = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string", "maxLength": 10}, "unit": {"enum": ["celsius", "fahrenheit"]}},
            "required": ["city", "unit"],
            "additionalProperties": False,
        },
    },
}


@check("openai: a forced tool call, whole and streamed, agree")
def openai_tools(server):
    api = client(server)
    model = api.models.list().data[0].id
    arguments = dict(
        model=model, messages=CHAT["messages"], tools=[TOOL], tool_choice="required", seed=2, max_tokens=80,
        parallel_tool_calls=False,
    )
    whole = api.chat.completions.create(**arguments).choices[0]
    assert whole.finish_reason == "tool_calls", whole
    call = whole.message.tool_calls[0]
    values = json.loads(call.function.arguments)
    assert call.function.name == "get_weather" and values["unit"] in ("celsius", "fahrenheit"), call
    name, text, reason = "", "", None
    for chunk in api.chat.completions.create(**arguments, stream=True):
        choice = chunk.choices[0]
        reason = choice.finish_reason or reason
        for delta in choice.delta.tool_calls or []:
            name += delta.function.name or ""
            text += delta.function.arguments or ""
    assert (name, text, reason) == (call.function.name, call.function.arguments, "tool_calls")


@check("anthropic: a forced tool call")
def anthropic_tools(server):
    import anthropic

    api = anthropic.Anthropic(base_url=f"http://127.0.0.1:{server.port}", api_key="none", max_retries=0)
    model = json.loads(server.request("GET", "/v1/models")[1])["data"][0]["id"]
    function = TOOL["function"]
    tool = {"name": function["name"], "description": function["description"], "input_schema": function["parameters"]}
    with api.messages.stream(
        model=model, max_tokens=80, messages=CHAT["messages"], tools=[tool],
        tool_choice={"type": "tool", "name": "get_weather", "disable_parallel_tool_use": True},
    ) as stream:
        message = stream.get_final_message()
    blocks = [block for block in message.content if block.type == "tool_use"]
    assert message.stop_reason == "tool_use" and blocks[0].input["unit"] in ("celsius", "fahrenheit"), message


@check("openai: errors are of the right class")
def openai_errors(server):
    import openai

    api = client(server)
    model = api.models.list().data[0].id
    cases = [
        (openai.NotFoundError, dict(model="no such model", messages=CHAT["messages"])),
        (openai.BadRequestError, dict(model=model, messages=CHAT["messages"], temperature=-1)),
        (openai.BadRequestError, dict(model=model, messages=[])),
        (openai.BadRequestError, dict(model=model, messages=[{"role": "user", "content": "a " * 5000}])),
    ]
    for error, arguments in cases:
        try:
            api.chat.completions.create(**arguments)
        except error as caught:
            assert caught.body["message"], caught
        else:
            raise AssertionError(f"no error for {str(arguments)[:80]}")


@check("openai: a retrieved model, a model that is not there")
def openai_models(server):
    import openai

    api = client(server)
    model = api.models.list().data[0].id
    assert api.models.retrieve(model).id == model
    try:
        api.models.retrieve("a/b")
    except openai.NotFoundError:
        pass
    else:
        raise AssertionError("no error")


@check("anthropic: messages, whole and streamed, agree; tokens are counted")
def anthropic_messages(server):
    import anthropic

    api = anthropic.Anthropic(base_url=f"http://127.0.0.1:{server.port}", api_key="none", max_retries=0)
    model = json.loads(server.request("GET", "/v1/models")[1])["data"][0]["id"]
    arguments = dict(model=model, max_tokens=40, messages=CHAT["messages"], extra_body={"temperature": 0})
    whole = api.messages.create(**arguments)
    assert whole.stop_reason == "max_tokens" and len(whole.content[0].text) > 20, whole
    with api.messages.stream(**arguments) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == whole.content[0].text == final.content[0].text
    counted = api.messages.count_tokens(model=model, messages=CHAT["messages"]).input_tokens
    usage = final.usage
    assert counted == usage.input_tokens + usage.cache_read_input_tokens, (counted, usage)
    try:
        api.messages.create(**dict(arguments, model="none"))
    except anthropic.NotFoundError:
        pass
    else:
        raise AssertionError("no error")


@check("ollama: chat and generate, whole and streamed, agree; models are listed")
def ollama_chat(server):
    import ollama

    api = ollama.Client(host=f"http://127.0.0.1:{server.port}")
    model = api.list().models[0].model
    arguments = dict(model=model, messages=CHAT["messages"], options={"seed": 1, "num_predict": 30})
    whole = api.chat(**arguments)
    text = "".join(part.message.content for part in api.chat(**arguments, stream=True))
    assert text == whole.message.content and len(text) > 20, text
    assert whole.eval_count == 30 and whole.done_reason == "length"
    part = api.generate(model=model, prompt="One day", raw=True, options={"num_predict": 5})
    assert part.response and part.done
    assert api.show(model).details.format == "gguf" and api.ps().models[0].model == model
    try:
        api.chat(model="none", messages=CHAT["messages"])
    except ollama.ResponseError as error:
        assert error.status_code == 404
    else:
        raise AssertionError("no error")
