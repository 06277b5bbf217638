"""A gRPC server on a free port of loopback; the port goes to the file that the argument names.

With a key and a certificate as further arguments it speaks TLS.
"""

import os
import sys
import time
from concurrent import futures

import grpc


def say(request, context):
    metadata = dict(context.invocation_metadata())
    context.set_trailing_metadata((("x-subject", metadata["x-enforcer-subject"]),))
    return request


def tick(_request, context):
    while context.is_active():
        yield b"t" * 1000
        time.sleep(0.01)


def talk(requests, _context):
    yield from requests


HANDLERS = grpc.method_handlers_generic_handler(
    "test.Echo",
    {
        "Say": grpc.unary_unary_rpc_method_handler(say),
        "Tick": grpc.unary_stream_rpc_method_handler(tick),
        "Talk": grpc.stream_stream_rpc_method_handler(talk),
    },
)

server = grpc.server(futures.ThreadPoolExecutor(8), handlers=(HANDLERS,))
if len(sys.argv) > 2:
    pem = [open(name, "rb").read() for name in sys.argv[2:]]
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pem]))
else:
    port = server.add_insecure_port("127.0.0.1:0")
server.start()
with open(sys.argv[1] + ".new", "w") as file:
    file.write(str(port))
os.rename(sys.argv[1] + ".new", sys.argv[1])
server.wait_for_termination()
