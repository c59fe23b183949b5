"""The guestbook's API.

GET  /healthz         200 once the database answers
GET  /api/items       the entries as JSON, newest first
GET  /api/items.html  the same as list items, for the page
POST /api/items       a new entry: JSON {"text": ...} or a form
"""

import html
import json
import os
import signal
import sys
import threading
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2
from psycopg2 import errors

from database import Database

DATABASE = Database()
MAX_ENTRIES = int(os.environ.get("MAX_ENTRIES", "50"))
MAX_BODY = 4096


def items():
    rows = DATABASE.run("SELECT id, text, created_at FROM items ORDER BY id DESC LIMIT %s", (MAX_ENTRIES,))
    return [{"id": number, "text": text, "created_at": at.isoformat()} for number, text, at in rows]


def as_html(item):
    at = item["created_at"]
    return f'<li><span>{html.escape(item["text"])}</span><time datetime="{at}">{at[:10]}</time></li>\n'


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        path = urllib.parse.urlsplit(self.path).path
        if path == "/healthz":
            self.attempt(lambda: self.answer(200, "text/plain", "ok" if DATABASE.run("SELECT 1") else ""))
        elif path == "/api/items":
            self.attempt(lambda: self.answer_json(200, items()))
        elif path == "/api/items.html":
            self.attempt(lambda: self.answer(200, "text/html", "".join(map(as_html, items()))))
        else:
            self.answer_json(404, {"error": "no such page"})

    def do_POST(self):
        length = int(self.headers.get("Content-Length") or 0)
        if urllib.parse.urlsplit(self.path).path != "/api/items":
            self.close_connection = True
            return self.answer_json(404, {"error": "no such page"})
        if length > MAX_BODY:
            self.close_connection = True
            return self.answer_json(413, {"error": "too long"})
        body = self.rfile.read(length).decode("utf-8", "replace")
        is_form = self.headers.get_content_type() == "application/x-www-form-urlencoded"
        try:
            given = dict(urllib.parse.parse_qsl(body)) if is_form else json.loads(body)
            text = given["text"].strip()
        except (ValueError, KeyError, TypeError, AttributeError):
            text = ""
        if not 1 <= len(text) <= 200:
            return self.answer_json(422, {"error": "`text` must have 1 to 200 characters"})
        self.attempt(lambda: self.add(text, is_form))

    def add(self, text, is_form):
        [(number,)] = DATABASE.run("INSERT INTO items (text) VALUES (%s) RETURNING id", (text,))
        if is_form:
            self.answer(303, "text/plain", "", {"Location": "/"})
        else:
            self.answer_json(201, {"id": number, "text": text})

    def attempt(self, work):
        try:
            work()
        except errors.UndefinedTable:
            self.answer_json(503, {"error": "the database is not migrated yet: run migrate.py"})
        except psycopg2.Error as error:
            print(f"database: {error}", file=sys.stderr)
            self.answer_json(503, {"error": "the database does not answer"})

    def answer_json(self, status, value):
        self.answer(status, "application/json", json.dumps(value))

    def answer(self, status, kind, text, headers=None):
        body = text.encode()
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        if self.path != "/healthz":
            super().log_message(format, *args)


def main():
    server = ThreadingHTTPServer(("", 8000), Handler)
    # As process 1 of a container nothing ends us but what we handle ourselves.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.shutdown).start())
    print("listening on port 8000")
    server.serve_forever(poll_interval=0.2)


if __name__ == "__main__":
    main()
