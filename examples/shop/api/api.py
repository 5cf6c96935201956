"""What is behind the shop: counts orders in a database it reaches as `db`."""
import http.server
import json
import os
import threading

import psycopg2

RELEASE = os.environ["RELEASE"]
DATABASE = os.environ["DATABASE"]
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


if __name__ == "__main__":
    Server(("0.0.0.0", 8000), Api).serve_forever()
