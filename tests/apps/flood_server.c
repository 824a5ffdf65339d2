/* A server with one answer, as fast as sockets let it be: the loop of a worker of `flood_worker.py`. */

#define _GNU_SOURCE
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CONNECTIONS = 65536, /* the highest descriptor */
    EVENTS = 256,
    REQUESTS = 1024, /* more than a read can hold */
    TURNS = 4096,    /* until the worker beats and looks for signals */
    WAIT_MS = 500,
};

static const char END[] = "\r\n\r\n";
static const char ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
enum { LENGTH = sizeof ANSWER - 1 };

static char answers[REQUESTS * LENGTH];
static unsigned char matched[CONNECTIONS]; /* how much of END the last read of a connection ended with */

/* Requests that end in these bytes. None has a body, and none has a \r or \n but at the end of a line. */
static int ends(int connection, const char *bytes, ssize_t count) {
    unsigned char at = matched[connection];
    int requests = 0;
    for (ssize_t i = 0; i < count; i++) {
        at = bytes[i] == END[at] ? at + 1 : bytes[i] == END[0];
        if (at == sizeof END - 1) {
            requests++;
            at = 0;
        }
    }
    matched[connection] = at;
    return requests;
}

static void answer(int connection) {
    char bytes[REQUESTS * 16]; /* the shortest request has 18 bytes */
    ssize_t count = recv(connection, bytes, sizeof bytes, 0);
    int requests = count > 0 ? ends(connection, bytes, count) : 0;
    size_t left = (size_t)requests * LENGTH;
    if (count <= 0 || (left > 0 && send(connection, answers, left, MSG_NOSIGNAL) != (ssize_t)left))
        close(connection);
}

static void admit(int loop, int listener) {
    int connection = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (connection < 0)
        return; /* another worker was faster */
    struct epoll_event event = {.events = EPOLLIN, .data.fd = connection};
    if (connection >= CONNECTIONS || epoll_ctl(loop, EPOLL_CTL_ADD, connection, &event) != 0)
        close(connection);
    else
        matched[connection] = 0;
}

/* Serves for a while; the listener does not block. */
void serve(int listener) {
    static int loop = -1;
    struct epoll_event events[EVENTS] = {{.events = EPOLLIN, .data.fd = listener}};
    if (loop < 0) {
        loop = epoll_create1(EPOLL_CLOEXEC);
        epoll_ctl(loop, EPOLL_CTL_ADD, listener, events);
        for (int i = 0; i < REQUESTS; i++)
            memcpy(answers + i * LENGTH, ANSWER, LENGTH);
    }
    for (int turn = 0; turn < TURNS; turn++) {
        int ready = epoll_wait(loop, events, EVENTS, WAIT_MS);
        if (ready <= 0)
            return;
        for (int i = 0; i < ready; i++) {
            if (events[i].data.fd == listener)
                admit(loop, listener);
            else
                answer(events[i].data.fd);
        }
    }
}
