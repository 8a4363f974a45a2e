"""The demo backend: speaks every dialect of the gateway, and fails on request.

Needs aiohttp and orjson and nothing of the gateway. `scripts/mock_upstream.py` starts it.
"""
