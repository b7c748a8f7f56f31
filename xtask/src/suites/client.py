"""Lists the tools of a gate, calls one that is permitted and one that is not. Exits with 0 if all is as it should be."""

import asyncio
import sys

CLIENT, URL, TOKEN_FILE = sys.argv[1:4]
PERMITTED = sys.argv[4:] == ["permitted"]
with open(TOKEN_FILE, encoding="ascii") as file:
    HEADERS = {"Authorization": f"Bearer {file.read().strip()}"}


def text(result):
    return "".join(block.text for block in result.content)


async def attempt(call):
    """What came of a call: its text, or that it was refused."""
    try:
        result = await call
    except Exception as error:  # each client has its own class for a refusal
        return f"refused: {error}"
    failed = getattr(result, "is_error", None) or getattr(result, "isError", None)
    return f"refused: {text(result)}" if failed else text(result)


async def drive(client, names):
    assert "up__echo" in names, names
    assert ("up__secrets" in names) == PERMITTED, names
    said = await attempt(client.call_tool("up__echo", {"message": "caf\u00e9"}))
    assert said == '{"message":"caf\u00e9"}', said
    secret = await attempt(client.call_tool("up__secrets", {}))
    absent = await attempt(client.call_tool("up__absent", {}))
    assert absent.startswith("refused"), absent
    if not PERMITTED:
        # What one may not use answers as what is not there.
        assert secret.replace("secrets", "absent") == absent, (secret, absent)


async def with_mcp():
    import httpx2
    from mcp import Client
    from mcp.client.streamable_http import streamable_http_client

    async with httpx2.AsyncClient(headers=HEADERS, timeout=60) as http:
        async with Client(streamable_http_client(URL, http_client=http)) as client:
            await drive(client, [tool.name for tool in (await client.list_tools()).tools])


async def with_fastmcp():
    from fastmcp import Client
    from fastmcp.client.transports import StreamableHttpTransport

    async with Client(StreamableHttpTransport(URL, headers=HEADERS)) as client:
        await drive(client, [tool.name for tool in await client.list_tools()])


asyncio.run({"mcp": with_mcp, "fastmcp": with_fastmcp}[CLIENT]())
