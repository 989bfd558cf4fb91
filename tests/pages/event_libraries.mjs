// Event streams by the libraries of npm, each as its own page says to use it: a line of JSON for each event, [library, name, data].
// node event_libraries.mjs FOLDER ADDRESS; the packages are in FOLDER/node_modules.

import { createRequire } from "node:module";

const [folder, address] = process.argv.slice(2);
const bring = createRequire(`${folder}/package.json`);
const tell = (library, name, data) => console.log(JSON.stringify([library, name, data]));
const NAMES = ["hello", "live", "gap", "reconnect", "unavailable", "end"];

const { EventSource } = bring("eventsource");
const source = new EventSource(address);
source.onmessage = ({ data }) => tell("eventsource", "message", data);
source.onerror = ({ code }) => tell("eventsource", source.readyState === 2 ? "over" : "error", String(code));
for (const name of NAMES) source.addEventListener(name, ({ data }) => tell("eventsource", name, data));

const { createEventSource } = bring("eventsource-client");
createEventSource({ url: address, onMessage: ({ event, data }) => tell("eventsource-client", event ?? "message", data) });

// Made for pages: it looks at two things that Node has not. Where a stream ends it is over for it, unless onclose throws.
Object.assign(globalThis, { window: globalThis, document: { hidden: false, addEventListener() {}, removeEventListener() {} } });
const { fetchEventSource } = bring("@microsoft/fetch-event-source");
fetchEventSource(address, {
  onmessage: ({ event, data }) => tell("fetch-event-source", event || "message", data),
  onclose: () => {
    throw new Error("come again");
  },
}).catch((error) => tell("fetch-event-source", "over", String(error)));
