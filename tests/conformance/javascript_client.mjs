// kafka-chat.js as the conformance suite runs it; with --call '["send", "room1", "hi"]' it also asks, and tells each answer.

import { parseArgs } from "node:util";

import { KafkaChat } from "../../kafka_chat/web/browser_client/kafka-chat.js";

const text = { type: "string" };
const texts = { type: "string", multiple: true, default: [] };
const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { cursor: text, from: text, until: text, chat: texts, token: texts, call: texts, times: { ...text, default: "1" } },
});
const tell = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);
const [url, username] = positionals;
const { cursor, from, until } = values;
let asked = 0;
const token = async () => {
  const found = values.token[Math.min(asked++, values.token.length - 1)];
  if (!found) {
    throw new Error("whoever makes the tokens cannot be reached");
  }
  return found;
};
const chat = new KafkaChat(url, username, {
  token: values.token.length ? token : undefined,
  cursor,
  from,
  until,
  chats: values.chat,
  heartbeat: 10, // the least that there is, so that a test of silence takes no longer than it must
  onMessage: (message) => tell({ message }),
  onGap: (gap) => tell({ gap }),
  onSkipped: (skipped) => tell({ skipped }),
  onState: (state, about) => tell({ state: { state, ...about } }),
});
chat.closed.then((final) => tell({ final }));

for (let times = 0; times < Number(values.times); times++) {
  for (const call of values.call) {
    const [name, ...what] = JSON.parse(call);
    chat[name](...what).then(
      (answer) => tell({ answer: { name, ...answer } }),
      ({ code, field, message }) => tell({ refused: { name, code, field, message } }),
    );
  }
}
