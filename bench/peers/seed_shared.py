"""A peer: FastAPI on uvicorn, one aiokafka consumer for the process, a queue per client.

`BOOT=HOST:PORT uvicorn seed_shared:app`; TOPICS: the topics to follow, separated by commas.
"""

import asyncio
import json
import os
import uuid
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaConsumer
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

PREFIX = "kafka.chat."
TOPICS = os.environ.get("TOPICS", "kafka.chat.global").split(",")

queues: dict[str, set[asyncio.Queue]] = {}


async def pump(consumer):
    async for record in consumer:
        value = json.loads(record.value)
        chat = record.topic[len(PREFIX) :]
        message = {"sender": value["sender"], "text": value["text"], "tag": value["tag"], "chat": chat}
        for queue in queues.get(chat, ()):
            queue.put_nowait(message)


@asynccontextmanager
async def lifespan(app):
    consumer = AIOKafkaConsumer(*TOPICS, bootstrap_servers=os.environ["BOOT"], group_id=str(uuid.uuid4()), auto_offset_reset="latest")
    await consumer.start()
    task = asyncio.create_task(pump(consumer))
    yield
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await consumer.stop()


app = FastAPI(lifespan=lifespan)


@app.get("/health")
async def health():
    return {"status": "Consumer is running"}


@app.websocket("/receive-message/client/{username}")
async def receive(websocket: WebSocket, username: str):
    await websocket.accept()
    queue: asyncio.Queue = asyncio.Queue()
    chats = ("global", username)
    for chat in chats:
        queues.setdefault(chat, set()).add(queue)

    async def deliver():
        while True:
            await websocket.send_json(await queue.get())

    task = asyncio.create_task(deliver())
    try:
        while True:  # otherwise the disconnect goes unnoticed
            await websocket.receive_text()
    except (WebSocketDisconnect, RuntimeError):
        return
    finally:
        for chat in chats:
            queues[chat].discard(queue)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
