"""Starts gunicorn on a socket of its own and passes every signal on, as a launcher does."""
import signal
import socket
import subprocess
import sys

started = None


def forward(number, frame):
    if started and number != signal.SIGCHLD:
        started.send_signal(number)


listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
for number in signal.valid_signals():
    try:
        signal.signal(number, forward)
    except (OSError, ValueError):
        pass
command = ["gunicorn", "-w", "2", "-b", f"fd://{listener.fileno()}", "app:app"]
started = subprocess.Popen(command, pass_fds=[listener.fileno()])
sys.exit(started.wait())
