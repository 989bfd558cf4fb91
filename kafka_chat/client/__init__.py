"""A trio client of the service: receives a user's messages, each once, and sends requests over HTTP."""

from .address import quoted
from .chat import Chat, open_chat
from .events import Event, Gap, Heartbeat, Hello, Live, Message, Sent, Skipped, Subscribed, Unsubscribed
from .http_api import Away, Refused, ask, subscribe

__all__ = [
    "Away",
    "Chat",
    "Event",
    "Gap",
    "Heartbeat",
    "Hello",
    "Live",
    "Message",
    "Refused",
    "Sent",
    "Skipped",
    "Subscribed",
    "Unsubscribed",
    "ask",
    "open_chat",
    "quoted",
    "subscribe",
]
