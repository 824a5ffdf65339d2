# Says in the log which workers have loaded the application.


def post_worker_init(worker):
    worker.log.info("worker ready: %s", worker.pid)
