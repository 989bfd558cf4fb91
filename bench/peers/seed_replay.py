"""A peer for replays: FastAPI on uvicorn, an aiokafka consumer for each client, which begins at the offset that the client names.

`BOOT=HOST:PORT uvicorn seed_replay:app`
"""

import asyncio
import json
import os

from aiokafka import AIOKafkaConsumer, TopicPartition
from fastapi import FastAPI, WebSocket, WebSocketDisconnect

PREFIX = "kafka.chat."

app = FastAPI()


@app.get("/health")
async def health():
    return {"status": "Consumer is running"}


@app.websocket("/receive-message/client/{username}")
async def receive(websocket: WebSocket, username: str, offset: int):
    await websocket.accept()
    consumer = AIOKafkaConsumer(bootstrap_servers=os.environ["BOOT"])
    place = TopicPartition(PREFIX + "global", 0)

    async def deliver():
        await consumer.start()
        consumer.assign([place])
        consumer.seek(place, offset)
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
