"""requests, the client of most Python programs, with a session that keeps its connections."""

import os
import sys

import requests

proxy, url = sys.argv[1:]
with requests.Session() as session:
    session.trust_env = False
    session.verify = os.environ["CA"]
    session.proxies = {"http": proxy, "https": proxy} if proxy else {}
    answer = session.get(url, timeout=20)
    print(answer.status_code, answer.headers.get("cache-status", ""), "|", answer.text)
