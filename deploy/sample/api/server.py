"""The API: entries as JSON. GET /api/items, POST /api/items with {"text": …}, GET /healthz."""

import json
import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psycopg2

VERSION = "one"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        if self.path == "/healthz":
            return self.answer(200, {"ok": True})
        if self.path != "/api/items":
            return self.answer(404, {"error": "no such page"})
        with psycopg2.connect(os.environ["DATABASE"]) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT text FROM entries ORDER BY id")
            return self.answer(200, {"version": VERSION, "items": [row[0] for row in cursor.fetchall()]})

    def do_POST(self):
        text = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["text"]
        with psycopg2.connect(os.environ["DATABASE"]) as connection, connection.cursor() as cursor:
            cursor.execute("INSERT INTO entries (text) VALUES (%s) ON CONFLICT DO NOTHING", (text,))
        return self.answer(201, {"text": text})


ThreadingHTTPServer(("", 8000), Handler).serve_forever()
