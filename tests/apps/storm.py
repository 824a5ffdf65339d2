"""Forks children that end at once, at a rate, for a time; prints how many. Arguments: how many a second, seconds."""
import os
import sys
import time

rate, seconds = int(sys.argv[1]), int(sys.argv[2])
begin = time.monotonic()
forked = alive = 0
while forked < rate * seconds and time.monotonic() < begin + seconds:
    if os.fork() == 0:
        os._exit(0)
    forked += 1
    alive += 1
    while alive and os.waitpid(-1, os.WNOHANG if alive < 50 else 0)[0]:
        alive -= 1
    time.sleep(max(0, begin + forked / rate - time.monotonic()))
for _ in range(alive):
    os.waitpid(-1, 0)
print(forked)
