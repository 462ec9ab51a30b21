"""Responses, routes of llama-server, and clients on top of OpenAI's: langchain-openai and litellm."""

import json
import os
import typing

from clients import client
from harness import CHAT, check


def text_of(events, kind):
    return "".join(event.delta for event in events if event.type == kind)


@check("openai: responses, whole and streamed, agree")
def responses(server):
    api = client(server)
    arguments = dict(model=api.models.list().data[0].id, input="Tell me a story.", max_output_tokens=30)
    arguments["extra_body"] = {"seed": 1}
    whole = api.responses.create(**arguments)
    assert whole.status == "incomplete" and whole.incomplete_details.reason == "max_output_tokens"
    assert len(whole.output_text) > 20 and whole.usage.output_tokens == 30
    events = list(api.responses.create(**arguments, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert text_of(events, "response.output_text.delta") == whole.output_text
    assert events[0].type == "response.created" and events[-1].type == "response.incomplete"
    assert events[-1].response.output_text == whole.output_text
    # The client's own collector checks the order of the events, and wants the answer to be complete.
    arguments["extra_body"] = {"seed": 1, "stop": whole.output_text[-5:]}
    with api.responses.stream(**arguments) as stream:
        collected = stream.until_done().get_final_response()
    assert collected.status == "completed" and whole.output_text.startswith(collected.output_text)


@check("openai: responses by a schema, parsed")
def responses_schema(server):
    import pydantic

    class Animal(pydantic.BaseModel):
        legs: typing.Literal[2, 4]
        tame: bool

    api = client(server)
    answer = api.responses.parse(
        model=api.models.list().data[0].id, input="An animal.", text_format=Animal, max_output_tokens=80,
        extra_body={"seed": 3},
    )
    assert isinstance(answer.output_parsed, Animal), answer


TOOL = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 10}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@check("openai: responses with a tool, its output and a previous response")
def responses_tools(server):
    api = client(server)
    arguments = dict(model=api.models.list().data[0].id, tools=[TOOL], max_output_tokens=60, extra_body={"seed": 2})
    first = api.responses.create(input="The weather in Bern?", tool_choice="required", **arguments)
    call = next(item for item in first.output if item.type == "function_call")
    assert call.name == "get_weather" and set(json.loads(call.arguments)) == {"city"}, call
    events = list(api.responses.create(input="The weather in Bern?", tool_choice="required", stream=True, **arguments))
    streamed = next(item for item in events[-1].response.output if item.type == "function_call")
    assert streamed.arguments == call.arguments == text_of(events, "response.function_call_arguments.delta")
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "12 degrees"}
    by_id = api.responses.create(
        input=[output], previous_response_id=first.id, tool_choice="none", temperature=0, **arguments
    )
    question = {"role": "user", "content": "The weather in Bern?"}
    by_list = api.responses.create(
        input=[question, *[item.to_dict() for item in first.output], output], tool_choice="none", temperature=0,
        **arguments,
    )
    assert by_id.usage.input_tokens == by_list.usage.input_tokens
    assert by_id.output_text == by_list.output_text


@check("openai: responses are stored, listed and deleted")
def responses_stored(server):
    import openai

    api = client(server)
    model = api.models.list().data[0].id
    first = api.responses.create(model=model, input="One day", max_output_tokens=5)
    assert api.responses.retrieve(first.id).output_text == first.output_text
    items = list(api.responses.input_items.list(first.id))
    assert [item.content[0].text for item in items] == ["One day"]
    api.responses.delete(first.id)
    unstored = api.responses.create(model=model, input="One day", max_output_tokens=5, store=False)
    for response in first, unstored:
        try:
            api.responses.retrieve(response.id)
            raise AssertionError("a response that is not stored was found")
        except openai.NotFoundError:
            pass


@check("openai: echo with log-probabilities of the prompt")
def echo(server):
    api = client(server)
    model = api.models.list().data[0].id
    answer = api.completions.create(model=model, prompt="One day a cat", echo=True, logprobs=2, max_tokens=3, seed=1)
    logprobs = answer.choices[0].logprobs
    assert answer.choices[0].text.startswith("One day a cat")
    assert len(logprobs.tokens) == answer.usage.prompt_tokens + 3 == len(logprobs.text_offset)
    assert logprobs.token_logprobs[0] is None and all(value <= 0 for value in logprobs.token_logprobs[1:])


@check("llama-server: completion, template, properties")
def llama(server):
    body = {"prompt": "One day", "n_predict": 8, "seed": 1, "return_tokens": True}
    response, text = server.request("POST", "/completion", body)
    whole = json.loads(text)
    assert response.status == 200 and len(whole["tokens"]) == 8 and whole["stop_type"] == "limit", whole
    _, text = server.request("POST", "/completion", {**body, "stream": True})
    chunks = [json.loads(line[6:]) for line in text.decode().splitlines() if line.startswith("data: ")]
    assert "".join(chunk["content"] for chunk in chunks) == whole["content"]
    assert [chunk["stop"] for chunk in chunks] == [False] * (len(chunks) - 1) + [True]
    _, text = server.request("POST", "/apply-template", CHAT)
    prompt = json.loads(text)["prompt"]
    assert CHAT["messages"][0]["content"] in prompt
    _, text = server.request("POST", "/tokenize", {"content": "One day"})
    assert json.loads(text)["tokens"]
    _, text = server.request("GET", "/props")
    props = json.loads(text)
    assert props["total_slots"] == 16 and props["chat_template"], props


@check("langchain_openai: chat, stream, tools, structured output", quick=False)
def langchain(server):
    import pydantic
    from langchain_core.tools import tool
    from langchain_openai import ChatOpenAI

    class Animal(pydantic.BaseModel):
        """An animal."""

        legs: typing.Literal[2, 4]

    @tool
    def weather(city: typing.Literal["Bern", "Basel"]) -> str:
        """Weather of a city."""
        return city

    model = client(server).models.list().data[0].id
    url = f"http://127.0.0.1:{server.port}/v1"
    chat = ChatOpenAI(model=model, base_url=url, api_key="none", seed=1, max_tokens=60, max_retries=0)
    whole = chat.invoke("Tell me a story.")
    assert whole.content == "".join(chunk.content for chunk in chat.stream("Tell me a story."))
    assert whole.usage_metadata["output_tokens"] > 0
    calls = chat.bind_tools([weather], tool_choice="weather", strict=True).invoke("Bern?").tool_calls
    assert calls[0]["name"] == "weather" and set(calls[0]["args"]) == {"city"}, calls
    assert isinstance(chat.with_structured_output(Animal, method="json_schema").invoke("A cat."), Animal)
    responses = ChatOpenAI(
        model=model, base_url=url, api_key="none", max_tokens=20, use_responses_api=True, max_retries=0
    )
    assert responses.invoke("Tell me a story.").text


@check("litellm: chat, stream, tools, structured output", quick=False)
def litellm_client(server):
    # Without it, importing litellm fetches a list of prices.
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    import litellm

    model = client(server).models.list().data[0].id
    arguments = dict(
        model=f"openai/{model}", api_base=f"http://127.0.0.1:{server.port}/v1", api_key="none", max_tokens=40, seed=1,
        messages=CHAT["messages"],
    )
    whole = litellm.completion(**arguments).choices[0].message.content
    chunks = litellm.completion(**arguments, stream=True)
    assert whole == "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    schema = {"type": "object", "properties": {"legs": {"enum": [2, 4]}}, "required": ["legs"], "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"name": "animal", "schema": schema, "strict": True}}
    value = json.loads(litellm.completion(**arguments, response_format=form).choices[0].message.content)
    assert value["legs"] in (2, 4), value
    function = {key: value for key, value in TOOL.items() if key != "type"}
    answer = litellm.completion(
        **{**arguments, "max_tokens": 80}, tools=[{"type": "function", "function": function}], tool_choice="required"
    )
    assert answer.choices[0].message.tool_calls[0].function.name == "get_weather", answer
