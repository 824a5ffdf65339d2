"""Forks as often as asked, at a rate: processes that live for a moment. Arguments: how many a second, how many."""
import os
import sys
import time

rate, count = int(sys.argv[1]), int(sys.argv[2])
begin = time.monotonic()
alive = 0
for number in range(count):
    if os.fork() == 0:
        os._exit(0)
    alive += 1
    while alive:
        pid, _ = os.waitpid(-1, os.WNOHANG if alive < 50 else 0)
        if pid == 0:
            break
        alive -= 1
    ahead = begin + (number + 1) / rate - time.monotonic()
    if ahead > 0:
        time.sleep(ahead)
    elif ahead < -30:
        sys.exit(f"{number} processes in {time.monotonic() - begin:.0f} s: this machine is too slow")
while alive:
    os.waitpid(-1, 0)
    alive -= 1
