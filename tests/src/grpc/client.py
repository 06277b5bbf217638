"""Makes one call of a method, and prints what came of it as JSON.

Arguments: address, file of the authority, token, method.
"""

import json
import sys
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


def taken_from(queue):
    """The messages of a queue, up to a `None`."""
    while True:
        message = queue.get()
        if message is None:
            return
        yield message


messages, length, trailers = 0, 0, ()
code, details = grpc.StatusCode.OK, ""
try:
    if method == "Say":
        answer, call = channel.unary_unary(path).with_call(MESSAGES[1], metadata=metadata)
        messages, length = 1, len(answer)
        trailers = call.trailing_metadata()
    elif method == "Tick":
        for answer in channel.unary_stream(path)(b"", metadata=metadata):
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
            "trailers": {item[0]: item[1] for item in trailers},
        }
    )
)
