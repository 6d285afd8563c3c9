// What the official JavaScript client sees of a running server. Arguments: its address, and an audio file with speech.
// Prints one line of JSON with its findings; test_contract_js.py judges them.

import { createReadStream } from "node:fs";
import OpenAI, { BadRequestError, NotFoundError, toFile } from "openai";
import { Stream } from "openai/streaming";

const [address, recording] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${address}/v1`, apiKey: "any", maxRetries: 0 });
const speech = { model: "tts-1", voice: "alloy", input: "This is one sentence of the text. ".repeat(12) };
const found = {};

const audio = await client.audio.speech.create({ ...speech, response_format: "pcm" });
found.speech = { bytes: (await audio.arrayBuffer()).byteLength, type: audio.headers.get("content-type") };

const streamed = await client.audio.speech.create({ ...speech, response_format: "pcm" });
found.streamed = { chunks: 0, bytes: 0 };
for await (const chunk of streamed.body) {
  found.streamed.chunks += 1;
  found.streamed.bytes += chunk.length;
}

const events = await client.audio.speech.create({ ...speech, response_format: "pcm", stream_format: "sse" });
found.events = { types: {}, bytes: 0 };
for await (const event of Stream.fromSSEResponse(events, new AbortController(), client)) {
  found.events.types[event.type] = (found.events.types[event.type] ?? 0) + 1;
  found.events.bytes += Buffer.from(event.audio ?? "", "base64").length;
  found.events.usage = event.usage;
}

const upload = () => ({ model: "whisper-1", file: createReadStream(recording) });
found.json = await client.audio.transcriptions.create(upload());
found.verbose = await client.audio.transcriptions.create({
  ...upload(),
  response_format: "verbose_json",
  timestamp_granularities: ["word", "segment"],
  chunking_strategy: { type: "server_vad", threshold: 0.4 },
  keywords: ["Ada", "Grace"],
  temperature: 0.25,
});
found.srt = await client.audio.transcriptions.create({ ...upload(), response_format: "srt" });
found.logprobs = (await client.audio.transcriptions.create({ ...upload(), include: ["logprobs"] })).logprobs;
found.deltas = [];
for await (const event of await client.audio.transcriptions.create({ ...upload(), stream: true })) {
  if (event.type === "transcript.text.delta") found.deltas.push(event.delta);
  else found.done = event;
}

found.translation = await client.audio.translations.create(upload());
found.models = [];
for await (const model of client.models.list()) found.models.push(model.id);

async function refusal(request, expected) {
  try {
    await request;
  } catch (error) {
    const { status, code, param, type } = error;
    return { typed: error instanceof expected, status, code, param, type, hasRequestId: Boolean(error.requestID) };
  }
  return null;
}

found.badVoice = await refusal(client.audio.speech.create({ ...speech, voice: "aloy" }), BadRequestError);
found.noModel = await refusal(client.models.retrieve("some/model"), NotFoundError);
const text = await toFile(Buffer.from("this is text"), "speech.wav");
found.noAudio = await refusal(client.audio.transcriptions.create({ model: "whisper-1", file: text }), BadRequestError);

console.log(JSON.stringify(found));
