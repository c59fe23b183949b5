"""The frontend: one page, made of what the API says."""

import html
import json
import os
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>:root{{color-scheme:light dark;font:16px/1.5 system-ui}}main{{max-width:32rem;margin:4rem auto}}</style>
<main><h1>{title}</h1><ul>{items}</ul><p>API version {version}, pull request #{pr}</p></main></html>"""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/healthz":
            return self.answer("ok")
        with urllib.request.urlopen(os.environ["API_URL"] + "/api/items", timeout=10) as response:
            listed = json.load(response)
        items = "".join(f"<li>{html.escape(text)}</li>" for text in listed["items"])
        title = html.escape(os.environ.get("GREETING", "Guestbook"))
        return self.answer(PAGE.format(
            title=title, items=items, version=html.escape(listed["version"]), pr=os.environ.get("STAGELY_PR", "?")))

    def answer(self, text):
        body = text.encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


ThreadingHTTPServer(("", 8080), Handler).serve_forever()
