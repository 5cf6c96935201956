"""What is behind the shop: counts orders in a database it reaches as `db`."""
import http.server
import json
import os
import threading

import psycopg2

RELEASE = os.environ["RELEASE"]
DATABASE = os.environ["DATABASE"]
TABLE = "CREATE TABLE IF NOT EXISTS orders (id serial PRIMARY KEY, release text NOT NULL)"
connections = threading.local()


def query(text, *values):
    """One statement on this thread's connection; a new one if it has none or lost it."""
    if getattr(connections, "open", None) is None:
        connections.open = psycopg2.connect(DATABASE, connect_timeout=2)
        connections.open.autocommit = True
    try:
        with connections.open.cursor() as cursor:
            cursor.execute(text, values)
            return cursor.fetchall() if cursor.description else []
    except psycopg2.Error:
        connections.open = None
        raise


class Api(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/health":
            self.answer(lambda: query("SELECT 1") and {"release": RELEASE})
        else:
            self.answer(lambda: {"release": RELEASE, "orders": query("SELECT count(*) FROM orders")[0][0]})

    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        insert = "INSERT INTO orders (release) VALUES (%s) RETURNING id"
        self.answer(lambda: {"release": RELEASE, "order": query(insert, RELEASE)[0][0]})

    def answer(self, ask):
        try:
            status, body = 200, ask()
        except psycopg2.Error as error:
            status, body = 503, {"release": RELEASE, "error": str(error).strip()}
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


def prepare():
    """Two instances may make the table at the same time; one of them is told that it is there."""
    try:
        query(TABLE)
    except psycopg2.Error as error:
        print(f"the table could not be made: {error}", flush=True)


if __name__ == "__main__":
    prepare()
    Server(("0.0.0.0", 8000), Api).serve_forever()
