"""A WebSocket client that opens as it is told to, says something, and waits for the end."""

import asyncio
import json
import ssl
import sys

import websockets

settings = json.loads(sys.argv[1])
trust = ssl.create_default_context(cafile=settings["ca"])
trust.set_alpn_protocols(["http/1.1"])


async def main():
    outcome = {}
    try:
        socket = await websockets.connect(
            settings["url"],
            ssl=trust,
            host=settings["host"],
            port=settings["port"],
            subprotocols=settings["subprotocols"] or None,
            origin=settings["origin"],
            extra_headers=settings["headers"],
        )
        outcome["subprotocol"] = socket.subprotocol
        outcome["seen"] = json.loads(await socket.recv())
        await socket.send("over there")
        outcome["echo"] = await socket.recv()
        if settings["wait"]:
            async for _ in socket:
                pass
        else:
            await socket.close()
        outcome["close"] = [socket.close_code, socket.close_reason]
    except websockets.InvalidStatusCode as error:
        outcome["status"] = error.status_code
    except websockets.ConnectionClosed as error:
        outcome["close"] = [error.code, error.reason]
    print(json.dumps(outcome))


asyncio.run(main())
