"""Holds the socket that gunicorn serves, as supervisord and systemd do: a child becomes gunicorn, this process stays."""
import os
import socket
import sys

listener = socket.socket(socket.AF_UNIX)
listener.bind("/srv/state/socket")
listener.listen()
child = os.fork()
if child == 0:
    os.chdir("/srv/app")
    os.dup2(listener.fileno(), 3)
    os.set_inheritable(3, True)
    os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()))
    options = ["--config", "gunicorn.conf.py", "--workers", "1", "--timeout", "120", "--backlog", "4"]
    os.execv(sys.executable, [sys.executable, "-m", "gunicorn", *options, "wsgi_app:app"])
os.waitpid(child, 0)
