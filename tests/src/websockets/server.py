"""A WebSocket server that speaks `chat`, tells what it was asked with, and echoes."""

import asyncio
import json
import os
import sys

import websockets


async def converse(socket):
    headers = [[name.lower(), value] for name, value in socket.request_headers.raw_items()]
    try:
        await socket.send(json.dumps({"subprotocol": socket.subprotocol, "headers": headers}))
        async for message in socket:
            await socket.send(message)
    except websockets.ConnectionClosed:
        # However it ended, it is for the test to judge.
        pass


async def main():
    async with websockets.serve(converse, "127.0.0.1", 0, subprotocols=["chat"]) as server:
        port = server.sockets[0].getsockname()[1]
        with open(sys.argv[1] + ".next", "w") as file:
            file.write(str(port))
        os.rename(sys.argv[1] + ".next", sys.argv[1])
        await asyncio.Future()


asyncio.run(main())
