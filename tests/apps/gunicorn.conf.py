# How the live tests start gunicorn: what it logs is the truth that the observer's report is compared with.
access_log_format = "%(p)s %(s)s %(m)s %(U)s"


def post_worker_init(worker):
    """Says that a worker has loaded the application and is about to accept."""
    worker.log.info("worker ready: %s", worker.pid)
