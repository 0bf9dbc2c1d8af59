"""Reading from web servers that may be slow, send too much, or end too early.

The timeout of a socket begins again with every byte, so a server that sends a byte at a time would
never be given up without the limits of this module.
"""

from __future__ import annotations

import concurrent.futures
import http.client
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping

# A server is given up if it sends nothing for TIMEOUT_SECONDS, or if it takes more than
# SLOW_SECONDS to begin its answer or sends fewer than LEAST_BYTES in that time.
TIMEOUT_SECONDS = 30.0
SLOW_SECONDS = 60.0
LEAST_BYTES = 2**16
_BLOCK = 2**18

Response = http.client.HTTPResponse | urllib.error.HTTPError


def request(url: str, headers: Mapping[str, str] | None = None) -> http.client.HTTPResponse:
    """Request a URL; the caller closes the answer.

    Raises `OSError`, among them `urllib.error.HTTPError` and `TimeoutError`, or `ValueError` and
    `http.client.HTTPException` for a URL or an answer that is not valid.
    """
    asked = urllib.request.Request(url, headers={"User-Agent": "blur_es", **(headers or {})})
    outcome: concurrent.futures.Future[http.client.HTTPResponse] = concurrent.futures.Future()

    def open_url() -> None:
        try:
            response = urllib.request.urlopen(asked, timeout=TIMEOUT_SECONDS)
        except Exception as error:  # raised again by the caller
            if outcome.set_running_or_notify_cancel():
                outcome.set_exception(error)
            return
        if outcome.set_running_or_notify_cancel():
            outcome.set_result(response)
        else:
            response.close()

    threading.Thread(target=open_url, daemon=True).start()
    try:
        return outcome.result(SLOW_SECONDS)
    except TimeoutError:
        if outcome.cancel():
            raise TimeoutError(f"no complete answer in {SLOW_SECONDS:g} s") from None
        return outcome.result()


def blocks(response: Response) -> Iterator[bytes]:
    """Yield what a server sends. Raises as `request` does, and `TimeoutError` if it is too slow."""
    since, arrived = time.monotonic(), 0
    # `read1` returns what has arrived, up to a block, without waiting for a full block.
    while block := response.read1(_BLOCK):
        yield block
        arrived += len(block)
        if time.monotonic() - since > SLOW_SECONDS:
            if arrived < LEAST_BYTES:
                raise TimeoutError(f"only {arrived} bytes came in {SLOW_SECONDS:g} s")
            since, arrived = time.monotonic(), 0


def read(url: str, most: int) -> bytes:
    """Return the content at a URL. Raises `OSError` if it has more than `most` bytes, or fails."""
    content = bytearray()
    try:
        with request(url) as response:
            for block in blocks(response):
                content += block
                if len(content) > most:
                    raise OSError(None, f"more than {most} bytes")
            if response.length:
                raise OSError(None, f"the connection ended {response.length} bytes too early")
    except urllib.error.HTTPError as error:
        error.close()
        raise OSError(None, f"the server answers {error.code} {error.reason}") from error
    except urllib.error.URLError as error:
        raise OSError(None, str(error.reason)) from error
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(None, str(error) or repr(error)) from error
    return bytes(content)
