#!/usr/bin/env python3
"""The official Python client of the Model Context Protocol against `omniburn mcp` and /mcp: agent.py PROGRAM DATA

DATA is a user's data folder (XDG_DATA_HOME) with an index of the samples. Exits with 1 at the first fault.
"""

import asyncio
import base64
import os
import subprocess
import sys

from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.client.streamable_http import streamable_http_client


async def use(streams, what):
    async with ClientSession(streams[0], streams[1]) as session:
        begun = await session.initialize()
        tools = await session.list_tools()
        assert [tool.name for tool in tools.tools] == ["search", "get", "status"], tools
        found = await session.call_tool("search", {"query": "a ship under sail", "kind": "video,image", "n": 3})
        hits = found.structured_content["hits"]
        assert not found.is_error and "boat-sailing" in hits[0]["path"], found
        assert hits[0]["id"] in found.content[0].text
        frame = await session.call_tool("get", {"id": hits[0]["id"]})
        assert base64.b64decode(frame.content[0].data).startswith(b"\x89PNG") and frame.content[0].mime_type == "image/png"
        spoken = await session.call_tool("search", {"query": "where is the guitar", "kind": "audio", "related_only": False})
        audio = await session.call_tool("get", {"id": spoken.structured_content["hits"][0]["id"], "at": "t=0-1"})
        assert audio.content[0].type == "audio" and base64.b64decode(audio.content[0].data).startswith(b"RIFF"), audio
        text = await session.call_tool("search", {"query": "bicycle tyre", "kind": "text", "mode": "words", "related_only": False})
        lines = await session.call_tool("get", {"id": text.structured_content["hits"][0]["id"], "at": "line=1"})
        assert "tyre" in lines.content[0].text, lines
        status = await session.call_tool("status", {})
        assert status.structured_content["files"]["video"] == 6, status
        for name, given in [("get", {"id": "zzzz"}), ("search", {"query": ""}), ("search", {"query": "a", "kind": "sculpture"})]:
            wrong = await session.call_tool(name, given)
            assert wrong.is_error and wrong.content[0].text, (name, given, wrong)
        try:
            await session.call_tool("search", {"query": "a", "pages": 3})
            raise SystemExit("an unknown argument was taken")
        except Exception as error:
            assert "pages" in str(error), error
        print(f"{what}: revision {begun.protocol_version}, three tools, image, audio and text")


async def main(program, data):
    environment = {**os.environ, "XDG_DATA_HOME": data}
    async with stdio_client(StdioServerParameters(command=program, args=["mcp"], env=environment)) as streams:
        await use(streams, "stdio")
    server = subprocess.Popen([program, "serve", "--port", "0"], stderr=subprocess.PIPE, text=True, env=environment)
    try:
        line = next(line for line in server.stderr if "http://" in line)
        address = "http://" + line.split("http://")[1].split(";")[0]
        async with streamable_http_client(f"{address}/mcp") as streams:
            await use(streams, "http")
    finally:
        server.terminate()
        server.wait(40)


asyncio.run(main(os.path.abspath(sys.argv[1]), sys.argv[2]))
