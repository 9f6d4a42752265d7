"""requests writes, and reads the receipt by the Location it got."""

import sys
import urllib.parse

import requests

proxy, url = sys.argv[1:]
with requests.Session() as session:
    session.trust_env = False
    session.proxies = {"http": proxy}
    answer = session.post(url, json={"from": "requests"}, timeout=20)
    location = urllib.parse.urljoin(url, answer.headers["location"])
    receipt = session.get(location, timeout=20)
    print(answer.status_code, receipt.json()["state"], "|", location)
