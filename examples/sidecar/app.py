"""A small application that reads a price from an API. It knows one address, API_URL: the gateway beside it.

Prints the price, and from the Cache-Status field where it came from. Reads every EVERY seconds, or once without it.
"""

import json
import os
import time
import urllib.error
import urllib.request

API_URL = os.environ.get("API_URL", "http://127.0.0.1:8080")
EVERY = float(os.environ.get("EVERY", "0"))

# No proxy here: the gateway is the API, as far as the application is concerned.
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def read_price():
    try:
        with opener.open(f"{API_URL}/price", timeout=10) as answer:
            price = json.load(answer)
            return f"{price['article']}: {price['price']} ({answer.headers.get('Cache-Status')})"
    except urllib.error.HTTPError as error:
        return f"no price: {error.code} {json.load(error).get('reason')}"
    except OSError as error:
        return f"no price: {error}"


while True:
    print(f"app: {read_price()}", flush=True)
    if not EVERY:
        break
    time.sleep(EVERY)
