// A streamed completion over HTTP, as any OpenAI client would ask for it. Knows nothing of the engine.

/** Calls `write` with each piece of text as it arrives and returns the number of pieces. @throws Error for an error event */
export async function streamCompletion(
  url: string,
  model: string,
  prompt: string,
  maxTokens: number,
  write: (text: string) => void,
): Promise<number> {
  const response = await fetch(`${url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, prompt, max_tokens: maxTokens, temperature: 0, stream: true }),
  });
  if (!response.ok || response.body === null)
    throw new Error(`The server answered ${response.status}: ${await response.text()}`);
  const decoder = new TextDecoder();
  let pending = "";
  let count = 0;
  for await (const bytes of response.body) {
    pending += decoder.decode(bytes as Uint8Array, { stream: true });
    const events = pending.split("\n\n");
    pending = events.pop()!;
    for (const event of events) {
      const data = event.replace(/^data: /, "");
      if (data === "[DONE]" || event.startsWith(":")) continue;
      const parsed = JSON.parse(data) as { choices?: { text?: string }[]; error?: { message: string } };
      if (parsed.error !== undefined) throw new Error(`The stream ended: ${parsed.error.message}`);
      const text = parsed.choices?.[0]?.text ?? "";
      if (text !== "") {
        count++;
        write(text);
      }
    }
  }
  return count;
}
