# How the live tests start gunicorn: what it logs is the truth that the observer's report is compared with.
import os
import time

if "TEST_SLOW_CONFIG" in os.environ:  # a test does something between the exec of a master and its first slot
    open(os.environ["TEST_SLOW_CONFIG"], "w").close()
    time.sleep(2)

access_log_format = "%(p)s %(s)s %(m)s %(U)s"


def pre_fork(server, worker):
    """Forks between a worker's slot and its fork, or says what the master's interpreter is like, where a test asks for it."""
    if "TEST_PRE_FORK_FORKS" in os.environ:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
    if "TEST_LAST_PID" in os.environ:  # the worker gets the next free number of its pid namespace
        with open("/proc/sys/kernel/ns_last_pid", "w") as last:
            last.write(os.environ["TEST_LAST_PID"])
    if "TEST_INSIDE" in os.environ:
        import inside_app
        with open(os.environ["TEST_INSIDE"], "w") as file:
            file.write(inside_app.truth())


def post_worker_init(worker):
    """Says that a worker has loaded the application and is about to accept."""
    worker.log.info("worker ready: %s", worker.pid)
    if "TEST_MARKS" in os.environ:
        import inside_app
        worker.log.info("collections at first: %s %s", worker.pid, inside_app.mark())


def worker_exit(server, worker):
    """Says how often the collector ran, where a test asks for it."""
    if "TEST_MARKS" in os.environ:
        import inside_app
        worker.log.info("collections at last: %s %s", worker.pid, inside_app.collections())
