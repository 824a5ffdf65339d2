"""Speaks HTTP/2 to a server: reads what to ask as JSON, one connection after the other, and prints what became of each request.

Arguments: host, port, and how the connection begins: tls, prior (knowledge) or upgrade.
"""
import json
import select
import socket
import ssl
import sys
import time

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.settings

PATIENCE = 20


def now():
    return time.time() * 1000


class Connection:
    """One connection; all of its requests are under way at once."""

    def __init__(self, host, port, how, requests):
        self.host, self.how, self.requests = f"{host}:{port}", how, requests
        self.socket = socket.create_connection((host, port), PATIENCE)
        self.port = self.socket.getsockname()[1]
        self.open = {}
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding="utf-8"))
        if how == "tls":
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket)
            assert self.socket.selected_alpn_protocol() == "h2"

    def run(self):
        asked = list(self.requests)
        if self.how == "upgrade":
            self.upgrade(asked.pop(0))
        else:
            self.h2.initiate_connection()
        for request in asked:
            self.ask(request)
        deadline = time.monotonic() + PATIENCE
        while any("end" not in request for request in self.requests):
            self.write()
            if time.monotonic() > deadline:
                break
            if not self.pending() and not select.select([self.socket], [], [], 0.5)[0]:
                continue
            data = self.read()
            if not data:
                break
            for event in self.h2.receive_data(data):
                self.take(event)
        self.open.clear()
        for request in self.requests:
            if "end" not in request:
                self.end(request, "no end")
        self.h2.close_connection()
        self.write()
        self.socket.close()

    def read(self):
        """What there is; nothing when the server is gone."""
        try:
            return self.socket.recv(65536)
        except OSError:
            return b""

    def pending(self):
        return self.how == "tls" and self.socket.pending()

    def upgrade(self, request):
        """Asks over HTTP/1.1; the answer comes on the first stream."""
        settings = self.h2.initiate_upgrade_connection().decode()
        request.update(start=now(), size=0, left=b"")
        head = (
            f"{request['method']} {request['path']}{request['query']} HTTP/1.1\r\nHost: {self.host}\r\n"
            f"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: {settings}\r\n\r\n"
        )
        self.socket.sendall(head.encode())
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            byte = self.socket.recv(1)
            assert byte, answer
            answer += byte
        assert answer.startswith(b"HTTP/1.1 101"), answer
        self.open[1] = request

    def ask(self, request):
        stream = self.h2.get_next_available_stream_id()
        headers = [
            (":method", request["method"]),
            (":path", request["path"] + request["query"]),
            (":scheme", "https" if self.how == "tls" else "http"),
            (":authority", self.host),
            *request["headers"],
        ]
        body = b"0123456789abcdef" * (request["body"] // 16)
        request.update(start=now(), size=0, left=body)
        self.h2.send_headers(stream, headers, end_stream=not body)
        if not request["reset"]:
            self.open[stream] = request
            return
        self.write()  # and nothing of the body
        time.sleep(0.05)
        self.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
        self.end(request, None)

    def write(self):
        """Sends what the server has room for."""
        for stream, request in list(self.open.items()):
            while request["left"]:
                room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
                if room <= 0:
                    break
                part, request["left"] = request["left"][:room], request["left"][room:]
                self.h2.send_data(stream, part, end_stream=not request["left"])
        try:
            self.socket.sendall(self.h2.data_to_send())
        except OSError:
            pass  # the server is gone, and reading says so

    def take(self, event):
        request = self.open.get(getattr(event, "stream_id", None))
        if request is None:
            return
        if isinstance(event, h2.events.ResponseReceived):
            headers = dict(event.headers)
            request["status"] = int(headers[":status"])
            request["worker"] = int(headers["x-worker"]) if "x-worker" in headers else None
        elif isinstance(event, h2.events.DataReceived):
            request["size"] += len(event.data)
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamEnded):
            del self.open[event.stream_id]
            self.end(request, None)
        elif isinstance(event, h2.events.StreamReset):
            if "status" in request and event.error_code == h2.errors.ErrorCodes.NO_ERROR:
                return  # the rest of the body is not wanted
            del self.open[event.stream_id]
            self.end(request, f"reset: {event.error_code}")

    def end(self, request, error):
        request.update(end=now(), error=error, port=self.port, host=self.host)
        request.pop("left", None)


def main():
    host, port, how = sys.argv[1:]
    for requests in json.load(sys.stdin):
        Connection(host, int(port), how, requests).run()
        for request in requests:
            print(json.dumps(request))


if __name__ == "__main__":
    main()
