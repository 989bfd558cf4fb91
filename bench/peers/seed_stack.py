"""A peer: FastAPI on uvicorn, an aiokafka consumer for each client, as first versions of such services have it.

`BOOT=HOST:PORT uvicorn seed_stack:app`
"""

import asyncio
import json
import os
import uuid

from aiokafka import AIOKafkaConsumer
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

PREFIX = "kafka.chat."

app = FastAPI()


@app.get("/health")
async def health():
    return {"status": "Consumer is running"}


@app.websocket("/receive-message/client/{username}")
async def receive(websocket: WebSocket, username: str):
    await websocket.accept()
    topics = (PREFIX + "global", PREFIX + username)
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=os.environ["BOOT"], group_id=str(uuid.uuid4()), auto_offset_reset="latest")

    async def deliver():
        await consumer.start()
        async for record in consumer:
            value = json.loads(record.value)
            chat = record.topic[len(PREFIX) :]
            await websocket.send_json({"sender": value["sender"], "text": value["text"], "tag": value["tag"], "chat": chat})

    task = asyncio.create_task(deliver())
    try:
        while True:  # otherwise the disconnect goes unnoticed, and the consumer outlives its socket
            await websocket.receive_text()
    except (WebSocketDisconnect, RuntimeError):
        return
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await consumer.stop()
