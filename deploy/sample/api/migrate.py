"""Brings the database up to date: each file of migrations/ once, in order. Safe to run again and again."""

import pathlib
import sys

import psycopg2

from database import Database


def main():
    database = Database()
    database.run(
        "CREATE TABLE IF NOT EXISTS migrations (name text PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())"
    )
    done = {name for (name,) in database.run("SELECT name FROM migrations")}
    for path in sorted((pathlib.Path(__file__).parent / "migrations").glob("*.sql")):
        if path.name in done:
            continue
        # One transaction: a migration that fails leaves no trace.
        sql = path.read_text(encoding="utf-8").replace("%", "%%")
        database.run(sql + ";INSERT INTO migrations (name) VALUES (%s)", (path.name,))
        print(f"applied {path.name}")
    print("the database is up to date")


if __name__ == "__main__":
    try:
        main()
    except psycopg2.Error as error:
        sys.exit(f"migration failed: {error}")
