// The messages of a conversation, and the request that continues it.

export class Conversation {
  messages = [];

  /** Appends a message of the user. */
  ask(text) {
    this.messages.push({ role: "user", content: text });
  }

  /** Appends an empty answer, which the stream fills. */
  beginAnswer(model) {
    const answer = { role: "assistant", model, content: "", reasoning: "", calls: [], state: "running", usage: null };
    this.messages.push(answer);
    return answer;
  }

  /** Appends the results of the tool calls of the last answer. */
  addResults(results) {
    for (const { id, content } of results) this.messages.push({ role: "tool", id, content });
  }

  /** Takes back the answers after the last message of the user or the last results. */
  dropAnswer() {
    while (this.messages.at(-1)?.role === "assistant") this.messages.pop();
  }

  /** Replaces the last message of the user and drops all that came after it. */
  edit(text) {
    this.messages.length = this.lastUserIndex();
    this.ask(text);
  }

  /** Index of the last message of the user; -1 without one. */
  lastUserIndex() {
    return this.messages.findLastIndex((message) => message.role === "user");
  }

  /** The body of the request for the next answer. */
  request(model, { system, sampling, tools }) {
    const head = system === "" ? [] : [{ role: "system", content: system }];
    const messages = [...head, ...this.messages.map(wire)];
    const body = { messages, stream: true, stream_options: { include_usage: true }, ...sampling };
    if (model !== "") body.model = model;
    if (tools.length > 0) body.tools = tools;
    return body;
  }
}

/** A message in the form of the API. Reasoning is not sent back: templates drop that of earlier answers. */
function wire({ role, content, calls, id }) {
  if (role === "tool") return { role, tool_call_id: id, content };
  if (role === "user" || calls.length === 0) return { role, content };
  const toolCalls = calls.map((call) => ({
    id: call.id,
    type: "function",
    function: { name: call.name, arguments: call.arguments },
  }));
  return { role, content: content === "" ? null : content, tool_calls: toolCalls };
}
