// A streamed answer of `/v1/chat/completions`.

import { ApiError, call, streamError } from "../api.js";
import { events } from "../sse.js";

/** Sends `body` and fills `answer`; calls `changed` after each chunk. Fails with an `ApiError` or an `AbortError`. */
export async function stream(body, answer, signal, changed) {
  const response = await call("POST", "v1/chat/completions", { body, signal });
  let complete = false;
  for await (const { data } of events(response)) {
    if (data === "[DONE]") {
      complete = true;
      break;
    }
    const chunk = JSON.parse(data);
    if (chunk.error) throw streamError(chunk.error);
    take(answer, chunk);
    changed();
  }
  if (!complete) throw new ApiError("The connection ended before the answer was complete.");
  answer.ended = performance.now();
}

function take(answer, chunk) {
  if (chunk.model) answer.model = chunk.model;
  if (chunk.usage) answer.usage = chunk.usage;
  const choice = chunk.choices?.[0];
  if (choice === undefined) return;
  const delta = choice.delta ?? {};
  const reasoning = delta.reasoning ?? delta.reasoning_content ?? "";
  if (reasoning || delta.content || delta.tool_calls) answer.began ??= performance.now();
  answer.reasoning += reasoning;
  answer.content += delta.content ?? "";
  for (const part of delta.tool_calls ?? []) {
    const slot = (answer.calls[part.index ?? 0] ??= { id: "", name: "", arguments: "", result: "" });
    slot.id = part.id ?? slot.id;
    slot.name += part.function?.name ?? "";
    slot.arguments += part.function?.arguments ?? "";
  }
  if (choice.finish_reason) answer.finish = choice.finish_reason;
}
