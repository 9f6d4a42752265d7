"""Python's standard library, which takes the proxy from a handler, as it would from http_proxy."""

import os
import ssl
import sys
import urllib.request

proxy, url = sys.argv[1:]
context = ssl.create_default_context(cafile=os.environ["CA"])
opener = urllib.request.build_opener(
    urllib.request.ProxyHandler({"http": proxy, "https": proxy} if proxy else {}),
    urllib.request.HTTPSHandler(context=context),
)
with opener.open(url, timeout=20) as answer:
    print(answer.status, answer.headers.get("cache-status", ""), "|", answer.read().decode())
