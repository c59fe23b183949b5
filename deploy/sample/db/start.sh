#!/bin/sh
# Makes the user and the database of the environment at the first start, then becomes the server.
set -eu

if [ ! -e "$PGDATA/made" ]; then
    # Single-user mode: nobody else gets in before there is a password. One line is one statement.
    postgres --single -D "$PGDATA" postgres >/dev/null <<SQL
CREATE ROLE "$POSTGRES_USER" LOGIN PASSWORD '$POSTGRES_PASSWORD'
CREATE DATABASE "$POSTGRES_DB" OWNER "$POSTGRES_USER"
SQL
    touch "$PGDATA/made"
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp -c jit=off
