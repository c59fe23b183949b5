"""The one connection to Postgres, opened again when it was lost."""

import os
import threading

import psycopg2


class Database:
    def __init__(self, url=None):
        self._url = url or os.environ["DATABASE_URL"]
        self._lock = threading.Lock()
        self._connection = None

    def run(self, sql, values=()):
        """Runs one statement in a transaction of its own; its rows, or none."""
        with self._lock:
            try:
                return self._run(sql, values)
            except (psycopg2.OperationalError, psycopg2.InterfaceError):
                # The server was restarted, say: a fresh connection is worth one more try.
                self._connection = None
                return self._run(sql, values)

    def _run(self, sql, values):
        if self._connection is None:
            self._connection = psycopg2.connect(self._url, connect_timeout=5)
        with self._connection, self._connection.cursor() as cursor:
            cursor.execute(sql, values)
            return cursor.fetchall() if cursor.description else []
