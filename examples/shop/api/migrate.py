"""Brings the schema of the shop's database to what this release works with: run once, before its fleet is made."""
import os

import psycopg2

STEPS = [
    "CREATE TABLE IF NOT EXISTS orders (id serial PRIMARY KEY, release text NOT NULL)",
    "CREATE TABLE IF NOT EXISTS migrations (at timestamptz NOT NULL DEFAULT now(), release text NOT NULL)",
]

with psycopg2.connect(os.environ["DATABASE"], connect_timeout=10) as connection:
    with connection.cursor() as cursor:
        for step in STEPS:
            cursor.execute(step)
        cursor.execute("INSERT INTO migrations (release) VALUES (%s)", (os.environ["RELEASE"],))
print(f"migrated for release {os.environ['RELEASE']}", flush=True)
