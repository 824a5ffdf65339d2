"""A client of many idle connections: `open N` opens so many more, `get I PATH` asks on the one that was opened as number I."""
import resource
import socket
import sys

hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
source, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
connections = []
for line in sys.stdin:
    order, *words = line.split()
    if order == "open":
        for _ in range(int(words[0])):
            connections.append(socket.create_connection((host, port), 30, (source, 0)))
    else:
        connections[int(words[0])].sendall(f"GET {words[1]} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        connections[int(words[0])].recv(4096)
    print("done", flush=True)
