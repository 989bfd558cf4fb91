/**
 * A client of kafka_chat for browsers and Node. It reconnects where it was, so that no message is lost or comes twice.
 *
 * It speaks the protocol kafka-chat.v1 (docs/protocol.md). One ES module, without a build or dependencies:
 *
 *     import { KafkaChat } from "http://127.0.0.1:8001/kafka-chat.js";                   // a page's <script type="module">
 *     const { KafkaChat } = await import("http://127.0.0.1:8001/kafka-chat.js");         // any other script
 *     import { KafkaChat } from "./kafka-chat.js";                                       // Node
 *
 *     const chat = new KafkaChat("http://127.0.0.1:8001", "ann", {
 *       onMessage: ({ chat, sender, text, tag, meta }) => console.log(chat, sender, text),
 *       onGap: ({ chat, partition, first_lost, first_left, cause }) => console.warn("lost", chat, first_lost, first_left, cause),
 *       onSkipped: ({ chat, offset }) => console.warn("not shown", chat, offset),
 *       onState: (state, about) => console.log(state, about),
 *     });
 *     await chat.subscribe("room1");
 *     await chat.send("room1", "hello");
 *     chat.close();
 *
 * Node has a WebSocket since version 22; with an older one pass that of the package ws: `{ WebSocket }`.
 */

const PROTOCOL = "kafka-chat.v1";
const PATH = "/receive-message/client/";

const FIRST_PAUSE_MS = 1_000;
const LONGEST_PAUSE_MS = 30_000;
const STEADY_MS = 30_000; // a connection that lasted so long was no failed try
const OPENING_MS = 20_000; // for the handshake, and once more for hello: the service may wait 5 s for a partition to go on
const HEARTBEAT_SECONDS = 20;
const LATE_MS = 5_000; // how late a heartbeat may be, and then the answer to a ping
const SAVING_MS = 1_000; // the cursor is handed to `save` so often at most
const LONGEST_IN_ADDRESS = 4_096; // of a cursor, in bytes; a longer one is the first frame
const UNANSWERED = 24; // ops at a time; the service allows 32
const FRAMES = 900; // in FRAMES_MS; the service allows 1,000
const FRAMES_MS = 10_000;
const TOPIC_CHARACTERS = [2, 28]; // of a message's id, what is the topic's own; before it stands the version, which may change on the way

const NO_TOKEN = 4401; // the close code where the token is missing, not valid, or over

const SOON = [0, FIRST_PAUSE_MS];
/**
 * Close code -> when it reconnects: the least pause, and the first bound of the random addition, in milliseconds; null: never.
 * docs/protocol.md, "When to reconnect", has the same table. 1005, 1014 and 1015 come from proxies.
 */
export const CLOSE_CODES = {
  1000: null, 1001: SOON, 1002: null, 1003: null, 1005: SOON, 1006: SOON, 1007: null, 1008: null, 1009: null, 1010: null,
  1011: [1_000, FIRST_PAUSE_MS], 1012: [0, 5_000], 1013: [2_000, 5_000], 1014: SOON, 1015: SOON,
  4400: null, 4401: null, 4403: null, 4408: SOON,
};
/** The same for any code: of those that are not in the table, 4400 to 4499 are final. */
const pauseAfter = (code) => (code in CLOSE_CODES ? CLOSE_CODES[code] : code >= 4400 && code < 4500 ? null : SOON);

/** An op was refused, or its answer will not come. */
export class KafkaChatError extends Error {
  /**
   * @param {string} message a sentence
   * @param {{code?: number, field?: string | null}} [about] `code` is an HTTP status, or 0 if the connection ended before the answer:
   *     the request may or may not have been carried out
   */
  constructor(message, { code = 0, field = null } = {}) {
    super(message);
    this.name = "KafkaChatError";
    this.code = code;
    this.field = field;
  }
}

/**
 * @typedef {object} Options
 * @property {string[]} [chats] these chats only, subscribed or not; nothing is stored
 * @property {string | number | Date} [from] where to begin: "latest", "earliest", a time, "-15m"
 * @property {number} [rewind] begin with this many last messages of each chat
 * @property {string | number | Date} [until] deliver only older messages, then end with 1000
 * @property {string[]} [tags] only messages with one of these tags, or with none
 * @property {string[]} [senders] only messages from one of these
 * @property {string} [cursor] begin after this cursor; overrides `load`
 * @property {() => string | null | undefined | Promise<string | null | undefined>} [load] returns the cursor last passed to `save`
 * @property {(cursor: string) => void} [save] stores the cursor; called at most once a second, and before the page is left
 * @property {number} [heartbeat] seconds, 10 to 600: a connection that is silent for this long is tested
 * @property {(message: object) => void} [onMessage] a message; the cursor is past it once this returns. `meta.left_out`, if present,
 *     names the parts of the record that are not shown: "key", "headers", "time"
 * @property {(gap: object) => void} [onGap] messages that are lost: `{chat, partition, first_lost, first_left, cause}`. `cause` is
 *     "retention", "recreated", "truncated"; or "cluster", with nothing else: the cursor is of another Kafka, where it began again
 * @property {(skipped: object) => void} [onSkipped] a message that exists but is not delivered: `{chat, id, partition, offset, time, cause}`.
 *     `cause` is "too_large": with its `meta` it is larger than the service's `limits.message_bytes`
 * @property {(state: string, about: object) => void} [onState] "connecting"; "open", with `resume`, `session`, `user`; "live": missed
 *     messages have come; "waiting", with `ms`, `code`, `reason`; "paused": the page is in the back/forward cache; "closed", with `code`, `reason`
 * @property {(meta: object) => void} [onControl] every control frame's `meta`, before any other callback
 * @property {string | (() => string | Promise<string>)} [token] says who connects, where the service asks for it. A function is called
 *     before the first connection, before a token ends, and where the service has refused it, never twice at a time
 * @property {typeof WebSocket} [WebSocket] instead of the platform's
 */

/** One user's messages over one connection after the other, until a close code is final or `close()` is called. */
export class KafkaChat {
  #address;
  #options;
  #WebSocket;
  #place = new Place();
  #ops = new Ops((frame) => this.#socket.send(frame));
  #tokens;
  #state = "new";
  #socket = null; // the current one; what an earlier one still says is not heard
  #greeted = false; // hello has come on it
  #greetedEver = false;
  #begun = false; // the service has given a cursor, so where to begin need not be said again
  #plain = false; // ask by ?meta=1, without the subprotocol
  #openedAt = 0;
  #heardAt = 0;
  #silenceMs = Infinity; // after so long a ping asks; Infinity where the service sends no heartbeats
  #askedAt = 0; // when a ping was sent that is not answered; 0 where there is none
  #awayUntil = 0; // the service said to stay away until then
  #boundMs = FIRST_PAUSE_MS;
  #watching; // the one timer: of a pause, an opening or a silence
  #saving;
  #saved = "";
  #chats = new Set();
  #session = null;
  #ended = new AbortController();
  #resolveClosed;

  /** @type {Promise<{code: number, reason: string}>} how it ended; it never rejects */
  closed = new Promise((resolve) => (this.#resolveClosed = resolve));

  /**
   * @param {string | URL | null} url the service's URL, `http://host:port`, with a path prefix if it has one; null: the origin of this file
   * @param {string} username the user whose messages to receive
   * @param {Options} [options]
   */
  constructor(url, username, options = {}) {
    this.#address = addressOf(url, username);
    this.#options = options;
    this.#tokens = new Tokens(options.token);
    this.#WebSocket = options.WebSocket ?? globalThis.WebSocket;
    if (!this.#WebSocket) {
      throw new TypeError("there is no WebSocket here; pass the option WebSocket, for instance that of the package ws");
    }
    this.#watchPage();
    this.#begin();
  }

  /** Everything before this cursor has been passed to `onMessage`; "" before anything is known. */
  get cursor() {
    return this.#place.cursor;
  }

  /** "connecting", "open", "live", "waiting", "paused" or "closed"; "new" while waiting for `load`. */
  get state() {
    return this.#state;
  }

  /** The followed chats, sorted. */
  get chats() {
    return [...this.#chats].sort();
  }

  /** The session's id in the service's log; null without a session. */
  get session() {
    return this.#session;
  }

  /** Follow a chat from now on, on all connections of the user. Resolves to `{chat, exists, positions}`. */
  subscribe(chat) {
    return this.#ask({ op: "subscribe", chat });
  }

  /** Stop following a chat. Resolves to `{chat, exists, positions}`. */
  unsubscribe(chat) {
    return this.#ask({ op: "unsubscribe", chat });
  }

  /** Send a message. Resolves to `{chat, partition, offset, id}` once Kafka has it; rejects with code 0 if that is unknown. */
  send(chat, text, { tag = null } = {}) {
    return this.#ask({ op: "send", chat, text, tag });
  }

  /** End for good. Returns `closed`. */
  close() {
    if (this.#state !== "closed") {
      this.#finish(1000, "");
    }
    return this.closed;
  }

  #ask(op) {
    if (this.#state === "closed") {
      return Promise.reject(new KafkaChatError("it is closed"));
    }
    const answer = this.#ops.ask(op);
    this.#ops.pump();
    return answer;
  }

  // --- one connection

  async #begin() {
    try {
      // Asynchronous even without `load`, so that `onState` may use the new object.
      const cursor = await (this.#options.cursor ?? this.#options.load?.());
      this.#place.begin(cursor ?? "");
      this.#saved = this.cursor;
    } catch (error) {
      this.#report(error); // without a cursor: what was missed is missed, what comes now is not
    }
    if (this.#state === "new") {
      this.#connect();
    }
  }

  #connect() {
    this.#greeted = false;
    this.#enter("connecting");
    if (this.#state !== "connecting") {
      return; // who was told has closed it
    }
    if (!this.#tokens.missing) {
      this.#open();
      return;
    }
    const waits = () => this.#state === "connecting" && !this.#socket;
    this.#watch(OPENING_MS, () => this.#lost(1006, "no token came", true)); // which says nothing of the subprotocol
    this.#tokens.renew().then(
      () => waits() && this.#open(),
      (error) => waits() && this.#noToken(error),
    );
  }

  /** There is no token to connect with: for good where there is only a refused one, else for now. */
  #noToken(error) {
    if (error.code === NO_TOKEN) {
      this.#finish(NO_TOKEN, error.message);
    } else {
      this.#lost(1006, `no token: ${error?.message ?? error}`, true);
    }
  }

  #open() {
    const cursor = this.cursor;
    const token = this.#tokens.token;
    const inFrame = cursor.length > LONGEST_IN_ADDRESS;
    const start = inFrame ? { op: "start", cursor } : { op: "start" };
    if (token && this.#plain) {
      start.token = token; // there is no subprotocol to show it in
    }
    const address = `${this.#address}?${this.#query(inFrame ? "frame" : cursor)}`;
    let socket;
    try {
      socket = this.#plain
        ? new this.#WebSocket(address)
        : new this.#WebSocket(address, token ? [PROTOCOL, `bearer.${token}`] : [PROTOCOL]);
    } catch (error) {
      this.#finish(1006, error.message); // a page that came by https may open no ws:
      return;
    }
    this.#socket = socket;
    let opened = false;
    socket.onopen = () => {
      if (socket === this.#socket) {
        opened = true;
        if (inFrame || start.token) {
          socket.send(JSON.stringify(start));
        }
        this.#watch(OPENING_MS, () => this.#noHello());
      }
    };
    socket.onmessage = ({ data }) => socket === this.#socket && this.#take(data);
    socket.onclose = ({ code, reason }) => socket === this.#socket && this.#lost(code, reason, opened);
    // `close` follows and says more, except in some versions of Node after a failed handshake.
    socket.onerror = () => setTimeout(() => socket === this.#socket && this.#lost(1006, "", opened), 1_000);
    this.#watch(OPENING_MS, () => this.#lost(1006, "no answer to the handshake", false));
  }

  #query(cursor) {
    const { chats = [], from, rewind, until, tags = [], senders = [], heartbeat = HEARTBEAT_SECONDS } = this.#options;
    const query = new URLSearchParams({ heartbeat });
    if (this.#plain) {
      query.set("meta", 1);
      if (this.#tokens.token) {
        query.set("start", "frame");
      }
    }
    if (cursor) {
      query.set("cursor", cursor);
    }
    // Send the start only until the service has sent a cursor; chats that it does not name begin where they were subscribed to.
    if (!this.#begun) {
      setIfGiven(query, "from", from);
      setIfGiven(query, "rewind", rewind);
    }
    setIfGiven(query, "until", until);
    for (const [name, values] of [["chat", chats], ["tag", tags], ["sender", senders]]) {
      values.forEach((value) => query.append(name, value));
    }
    return query;
  }

  #take(data) {
    this.#heardAt = Date.now();
    let frame;
    try {
      frame = JSON.parse(data);
    } catch {
      frame = null; // no frame of ours; below
    }
    const meta = frame?.meta;
    if (!this.#greeted && meta?.type !== "hello") {
      this.#noHello();
    } else if (typeof meta?.type === "string") {
      this.#tell("onControl", meta);
      this.#control(meta);
    } else if (typeof meta?.id === "string" && this.#place.advance(frame)) {
      this.#tell("onMessage", frame);
      this.#saveSoon();
    }
  }

  /** The other end accepts WebSockets but does not speak the protocol, or speaks it and hangs. */
  #noHello() {
    if (this.#socket.protocol === PROTOCOL) {
      this.#lost(1006, "no hello came", true);
    } else {
      this.#finish(1002, `the service does not speak ${PROTOCOL}`);
    }
  }

  #control(meta) {
    const socket = this.#socket;
    if (meta.type === "hello") {
      this.#hello(meta);
    } else {
      this.#takeCursor(meta);
    }
    if (socket !== this.#socket) {
      return; // who was told has closed it
    }
    switch (meta.type) {
      case "live":
        this.#enter("live");
        break;
      case "gap":
        if (this.#place.jump(meta)) {
          this.#tell("onGap", meta);
        }
        break;
      case "skipped":
        if (this.#place.advance({ chat: meta.chat, meta })) {
          this.#tell("onSkipped", meta);
          this.#saveSoon();
        }
        break;
      case "subscribed":
        this.#chats.add(meta.chat);
        break;
      case "unsubscribed":
        this.#chats.delete(meta.chat);
        break;
      case "challenge":
        this.#renewToken();
        break;
      case "reconnect":
        this.#ops.stop();
        this.#awayUntil = Date.now() + (Number(meta.after_ms) || 0);
        break;
    }
    this.#ops.answer(meta);
  }

  /** Show a new token. Where none comes, the connection ends with the old one, and it is asked for again. */
  async #renewToken() {
    if (!this.#tokens.renewable) {
      return;
    }
    let token;
    try {
      token = await this.#tokens.renew();
    } catch {
      return; // who makes tokens is away; if that lasts, `onState` says why when the connection has ended
    }
    this.#ask({ op: "auth", token }).catch(() => {}); // the service keeps the old token, or closes the connection and says why
  }

  /** Note the cursor of a frame, if it has one; a `hello` has none while no broker answers. */
  #takeCursor({ cursor }) {
    if (typeof cursor === "string") {
      this.#place.begin(cursor);
      this.#begun = true;
      this.#saveSoon();
    }
  }

  #hello(meta) {
    const moved = meta.resume === "none" && this.cursor !== "";
    if (moved) {
      this.#place.forget();
    }
    this.#takeCursor(meta);
    this.#greeted = this.#greetedEver = true;
    this.#openedAt = Date.now();
    this.#awayUntil = 0;
    this.#session = meta.session ?? null;
    this.#chats = new Set(meta.chats);
    const seconds = meta.limits?.heartbeat_seconds;
    this.#silenceMs = seconds ? seconds * 1_000 + LATE_MS : Infinity;
    this.#listenOn();
    this.#ops.start(meta.limits?.client_message_bytes);
    this.#enter("open", { resume: meta.resume, session: this.#session, user: meta.user });
    if (moved && this.#socket) {
      this.#tell("onGap", { type: "gap", chat: null, partition: null, first_lost: null, first_left: null, cause: "cluster" });
    }
    this.#ops.pump();
  }

  /** Watch for a silence that is too long. */
  #listenOn() {
    this.#askedAt = 0;
    const leftMs = this.#heardAt + this.#silenceMs - Date.now();
    if (leftMs <= 0) {
      this.#probe();
    } else if (leftMs === Infinity) {
      this.#unwatch();
    } else {
      this.#watch(leftMs, () => this.#listenOn());
    }
  }

  /** Test whether the connection is alive, after the page slept, the network changed, or a heartbeat is late. */
  #probe() {
    if (!this.#greeted || this.#askedAt) {
      return;
    }
    this.#askedAt = Date.now();
    this.#socket.send(JSON.stringify({ op: "ping" }));
    this.#watch(LATE_MS, () => {
      if (this.#heardAt >= this.#askedAt) {
        this.#listenOn();
      } else if (Date.now() - this.#askedAt > 2 * LATE_MS) {
        this.#askedAt = 0; // we slept, and what was said meanwhile may be about to be heard
        this.#probe();
      } else {
        this.#lost(1006, "no sign of life", true);
      }
    });
  }

  /** A connection has ended, with or without a close frame. */
  #lost(code, reason, opened) {
    if (this.#greeted && Date.now() - this.#openedAt >= STEADY_MS) {
      this.#boundMs = FIRST_PAUSE_MS;
    }
    this.#leave();
    if (pauseAfter(code) === null && !(code === NO_TOKEN && this.#tokens.refuse())) {
      this.#finish(code, reason);
      return;
    }
    if (!opened && !this.#greetedEver) {
      // A browser does not say why. If the subprotocol was not accepted, a proxy may have dropped it, or the service is an old one.
      this.#plain = !this.#plain;
    }
    this.#wait(code, reason);
  }

  /** Full jitter: a random pause up to a bound that doubles, so that clients do not reconnect all at once. */
  #wait(code, reason) {
    const awayMs = this.#awayUntil - Date.now();
    const [least, leastBound] = pauseAfter(code) ?? SOON;
    let ms = Math.max(awayMs, 0);
    if (awayMs <= 0) {
      ms = least + Math.random() * Math.max(this.#boundMs, leastBound);
      this.#awayUntil = Date.now() + least;
    }
    this.#boundMs = Math.min(this.#boundMs * 2, LONGEST_PAUSE_MS);
    this.#watch(ms, () => this.#connect());
    this.#enter("waiting", { ms, code, reason });
  }

  /** Release the socket without waiting, because a half-open one takes minutes to close. */
  #leave() {
    const socket = this.#socket;
    this.#socket = null;
    this.#greeted = false;
    this.#askedAt = 0;
    this.#session = null;
    this.#unwatch();
    this.#ops.lose();
    if (socket && socket.readyState < 2) {
      socket.close(1000);
    }
  }

  #finish(code, reason) {
    this.#state = "closed";
    this.#leave();
    this.#ended.abort();
    this.#saveNow();
    this.#ops.end(new KafkaChatError(`it is closed: ${code}${reason && " "}${reason}`));
    this.#enter("closed", { code, reason });
    this.#resolveClosed({ code, reason });
  }

  #watch(ms, late) {
    this.#unwatch();
    this.#watching = setTimeout(late, ms);
  }

  #unwatch() {
    clearTimeout(this.#watching);
  }

  // --- the page; in Node there is none

  #watchPage() {
    const { document } = globalThis;
    const on = (target, name, act) => target?.addEventListener?.(name, act, { signal: this.#ended.signal });
    on(globalThis, "online", () => this.#wake());
    on(globalThis, "offline", () => this.#probe());
    on(globalThis, "pageshow", ({ persisted }) => persisted && this.#wake());
    on(globalThis, "pagehide", () => this.#pause());
    on(document, "resume", () => this.#wake());
    on(document, "freeze", () => this.#saveNow());
    on(document, "visibilitychange", () => (document.visibilityState === "visible" ? this.#wake() : this.#saveNow()));
  }

  /** The page is visible or online again: end the pause, and test the connection. */
  #wake() {
    if (this.#socket) {
      this.#probe();
    } else if (this.#state === "paused" || this.#state === "waiting") {
      this.#watch(Math.max(this.#awayUntil - Date.now(), 0), () => this.#connect()); // not before the service wants it
    }
  }

  /** Close the socket, because a page with an open one is not kept in the back/forward cache. */
  #pause() {
    if (this.#state !== "closed" && this.#state !== "new") {
      this.#leave();
      this.#saveNow();
      this.#enter("paused");
    }
  }

  // --- callbacks

  #enter(state, about = {}) {
    this.#state = state;
    this.#tell("onState", state, about);
  }

  /** Call a callback; an exception in it is reported to the page, and does not disturb us. */
  #tell(name, ...what) {
    try {
      this.#options[name]?.(...what);
    } catch (error) {
      this.#report(error);
    }
  }

  #report(error) {
    queueMicrotask(() => {
      throw error;
    });
  }

  #saveSoon() {
    if (this.#options.save) {
      this.#saving ??= setTimeout(() => this.#saveNow(), SAVING_MS);
    }
  }

  #saveNow() {
    clearTimeout(this.#saving);
    this.#saving = undefined;
    const cursor = this.cursor;
    if (cursor !== this.#saved) {
      this.#saved = cursor;
      this.#tell("save", cursor);
    }
  }
}

/** How far messages have come, by partition. */
class Place {
  #base = "";
  #ids = new Map(); // "partition/chat" -> the last message's id, since #base
  #partitions = new Map(); // "partition/chat" -> {topic, next, gap}: what is due there, and the last gap that was told

  get cursor() {
    return [this.#base, ...this.#ids.values()].filter(Boolean).join(".");
  }

  /** Take a cursor of the service. */
  begin(cursor) {
    this.#base = cursor;
    this.#ids.clear();
  }

  /** Start over: the service has another Kafka cluster now. */
  forget() {
    this.begin("");
    this.#partitions.clear();
  }

  /** Move past a message, or the notice that replaces it (without an id from an earlier service); false if it came before. */
  advance({ chat, meta: { id, partition, offset } }) {
    if (typeof id !== "string") {
      return true;
    }
    const key = `${partition}/${chat}`;
    const topic = id.slice(...TOPIC_CHARACTERS); // one that was recreated counts from 0 again
    const known = this.#partitions.get(key);
    if (known && offset < known.next && (known.topic === topic || known.topic === null)) {
      return false;
    }
    this.#partitions.set(key, { topic, next: offset + 1 });
    this.#ids.set(key, id);
    return true;
  }

  /** Continue where a gap ends, which may be before our position; false if it was reported before. */
  jump({ chat, partition, first_lost, first_left, cause }) {
    const key = `${partition}/${chat}`;
    const gap = `${cause} ${first_lost} ${first_left}`;
    const known = this.#partitions.get(key);
    if (known?.gap === gap) {
      return false;
    }
    const topic = cause === "recreated" ? null : (known?.topic ?? null);
    this.#partitions.set(key, { topic, next: first_left, gap });
    return true;
  }
}

/** The caller's ops: sent in order, a few at a time, each answered once. */
class Ops {
  #write;
  #queue = []; // not written yet
  #asked = new Map(); // re -> written, not answered yet
  #last = 0;
  #open = false;
  #longest = Infinity; // bytes of a frame; the service closes on a longer one
  #written = []; // when the last FRAMES of them were
  #pumping;

  constructor(write) {
    this.#write = write;
  }

  ask(op) {
    return new Promise((resolve, reject) => this.#queue.push({ op: { ...op, re: ++this.#last }, resolve, reject }));
  }

  start(longest = Infinity) {
    this.#open = true;
    this.#longest = longest;
  }

  stop() {
    this.#open = false;
  }

  /** Send as many as the service accepts. */
  pump() {
    while (this.#open && this.#queue.length && this.#asked.size < UNANSWERED && this.#mayWrite()) {
      const asked = this.#queue.shift();
      const frame = JSON.stringify(asked.op);
      const bytes = new TextEncoder().encode(frame).length;
      if (bytes > this.#longest) {
        asked.reject(new KafkaChatError(`it has ${bytes} bytes; at most ${this.#longest} are allowed`, { code: 413 }));
      } else {
        this.#asked.set(asked.op.re, asked);
        this.#written.push(Date.now());
        this.#write(frame);
      }
    }
  }

  #mayWrite() {
    const now = Date.now();
    if (this.#written.length >= FRAMES) {
      const ms = this.#written[0] + FRAMES_MS - now;
      if (ms > 0) {
        this.#pumping ??= setTimeout(() => {
          this.#pumping = undefined;
          this.pump();
        }, ms);
        return false;
      }
      this.#written.shift();
    }
    return true;
  }

  answer({ re, type, ...about }) {
    const asked = this.#asked.get(re);
    if (asked) {
      this.#asked.delete(re);
      if (type === "error") {
        asked.reject(new KafkaChatError(about.message, about));
      } else {
        asked.resolve(about);
      }
      this.pump();
    }
  }

  /** The connection has ended. Ops that may be done twice are repeated; sending a message is not. */
  lose() {
    this.stop();
    const again = [];
    for (const asked of this.#asked.values()) {
      if (asked.op.op === "send") {
        asked.reject(new KafkaChatError("the connection ended before the answer; the message may have been sent or not"));
      } else {
        again.push(asked);
      }
    }
    this.#asked.clear();
    this.#queue.unshift(...again);
  }

  end(error) {
    clearTimeout(this.#pumping);
    this.#queue.splice(0).forEach(({ reject }) => reject(error));
  }
}

/** The token, and where the next one comes from. */
class Tokens {
  #source;
  #refused = null;
  #asking = null; // what is asked for now

  token = null; // to connect with

  constructor(source) {
    this.#source = source;
    this.token = typeof source === "string" ? source : null;
  }

  /** There should be one, and it has to be asked for. */
  get missing() {
    return this.#source != null && this.token === null;
  }

  get renewable() {
    return typeof this.#source === "function";
  }

  /** Ask for the next one, or wait for the one that is asked for. Rejects with code 4401 where it is the one that was refused. */
  renew() {
    this.#asking ??= this.#renew().finally(() => (this.#asking = null));
    return this.#asking;
  }

  async #renew() {
    const token = await this.#source();
    if (token === this.#refused) {
      throw new KafkaChatError("the token is not valid, and there is no other", { code: NO_TOKEN });
    }
    this.token = token;
    return token;
  }

  /** The service has refused the token; false where there will be no other. */
  refuse() {
    if (!this.renewable) {
      return false;
    }
    this.#refused = this.token;
    this.token = null;
    return true;
  }
}

function addressOf(url, username) {
  const address = new URL(url ?? new URL(".", import.meta.url), globalThis.location?.href);
  if (!/^(https?|wss?):$/.test(address.protocol)) {
    throw new TypeError(`${address} is no address of a service; http://HOST:PORT or https://HOST:PORT is needed`);
  }
  address.protocol = address.protocol.replace("http", "ws");
  address.search = address.hash = "";
  const path = address.pathname.replace(/\/+$/, "") + PATH + encodeURIComponent(username);
  address.pathname = path;
  if (!username || address.pathname !== path) {
    throw new TypeError(`the username ${JSON.stringify(username)} cannot stand in an address`); // "." and ".."
  }
  return address.href;
}

function setIfGiven(query, name, value) {
  if (value != null) {
    query.set(name, value instanceof Date ? value.getTime() : value);
  }
}
