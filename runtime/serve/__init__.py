"""`rap-serve`: the kiosk page. Needs the extra `serve` (aiohttp, aiortc), which only this package imports."""
