"""Brings the schema up to date; run after every deploy, safe to repeat."""

import os

import psycopg2

with psycopg2.connect(os.environ["DATABASE"]) as connection, connection.cursor() as cursor:
    cursor.execute("CREATE TABLE IF NOT EXISTS entries (id serial PRIMARY KEY, text text NOT NULL UNIQUE)")
    cursor.execute("INSERT INTO entries (text) VALUES ('Hello from the database') ON CONFLICT DO NOTHING")
print("migrated")
