#!/bin/sh
# Makes the database at the first start; later ones find it in the volume.
set -eu
bin=/usr/lib/postgresql/17/bin
data=/var/lib/postgresql/data/cluster
if [ ! -s "$data/PG_VERSION" ]; then
  "$bin/initdb" -D "$data" -U postgres --auth-local=trust --auth-host=scram-sha-256 --no-sync >/dev/null
  echo "host all all all scram-sha-256" >>"$data/pg_hba.conf"
  "$bin/pg_ctl" -D "$data" -w -o "-c listen_addresses=''" start >/dev/null
  psql -q -U postgres -v ON_ERROR_STOP=1 -v password="$POSTGRES_PASSWORD" <<'SQL'
CREATE ROLE guestbook LOGIN PASSWORD :'password';
CREATE DATABASE guestbook OWNER guestbook;
SQL
  "$bin/pg_ctl" -D "$data" -w stop >/dev/null
fi
exec "$bin/postgres" -D "$data" -c listen_addresses='*' -c fsync=off
