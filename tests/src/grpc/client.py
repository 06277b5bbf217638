"""Makes one call of a method, and prints what came of it as JSON.

Arguments: address, file of the authority, token, method.
"""

import json
import os
import sys
import threading
import time
from queue import SimpleQueue

import grpc

address, authority, token, method = sys.argv[1:]
with open(authority, "rb") as file:
    credentials = grpc.ssl_channel_credentials(file.read())
options = (("grpc.ssl_target_name_override", "enforcer.test"),)
channel = grpc.secure_channel(address, credentials, options=options)
metadata = (("authorization", f"Bearer {token}"),)
path = f"/test.Echo/{method}"

MESSAGES = [b"m" * size for size in (1, 100_000, 10)]
SPOKEN_FOR = 3.0


def taken_from(queue):
    """The messages of a queue, up to a `None`."""
    while True:
        message = queue.get()
        if message is None:
            return
        yield message


def spoken():
    """A message every 50 ms for a while, then silence to the end of the call."""
    global last_sent_at
    end = time.time() + SPOKEN_FOR
    while time.time() < end:
        last_sent_at = time.time()
        yield MESSAGES[0]
        time.sleep(0.05)
    threading.Event().wait()


messages, length, headers, trailers, last_sent_at = 0, 0, (), (), 0.0
code, details = grpc.StatusCode.OK, ""
try:
    if method == "Say":
        answer, call = channel.unary_unary(path).with_call(MESSAGES[1], metadata=metadata)
        messages, length = 1, len(answer)
        headers, trailers = call.initial_metadata(), call.trailing_metadata()
    elif method == "Tick":
        for answer in channel.unary_stream(path)(b"", metadata=metadata):
            messages, length = messages + 1, length + len(answer)
    elif method == "Chat":
        for answer in channel.stream_stream("/test.Echo/Talk")(spoken(), metadata=metadata):
            messages, length = messages + 1, length + len(answer)
    else:
        queue = SimpleQueue()
        queue.put(MESSAGES[0])
        for answer in channel.stream_stream(path)(taken_from(queue), metadata=metadata):
            messages, length = messages + 1, length + len(answer)
            queue.put(MESSAGES[messages] if messages < len(MESSAGES) else None)
except grpc.RpcError as error:
    code, details = error.code(), error.details()
print(
    json.dumps(
        {
            "ended_at": time.time(),
            "code": code.name,
            "details": details,
            "messages": messages,
            "bytes": length,
            "last_sent_at": last_sent_at,
            "headers": {item[0]: item[1] for item in headers},
            "trailers": {item[0]: item[1] for item in trailers},
        }
    )
)
# What still waits to be said is not waited for.
sys.stdout.flush()
os._exit(0)
