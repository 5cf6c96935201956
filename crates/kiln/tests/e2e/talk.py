"""Events and conversations: what nginx has not, by a server that many use."""

import asyncio

from aiohttp import web

EVENTS = 20


async def events(request):
    answer = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await answer.prepare(request)
    for n in range(EVENTS):
        await answer.write(b"data: %d\n\n" % n)
        await asyncio.sleep(0.05)
    await answer.write_eof()
    return answer


async def echo(request):
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    ticking = asyncio.create_task(tick(socket))
    async for message in socket:
        await socket.send_str(message.data)
    ticking.cancel()
    return socket


async def tick(socket):
    n = 0
    while not socket.closed:
        await socket.send_str(f"tick {n}")
        n += 1
        await asyncio.sleep(0.07)


async def well(request):
    return web.Response(text="well\n")


app = web.Application()
app.add_routes([web.get("/talk/events", events), web.get("/talk/echo", echo), web.get("/talk/well", well)])
web.run_app(app, port=8000, access_log=None, print=None)
