/* Polling stdin gives it or a timeout; polling stdout and stderr gives both, each as ready to be written to. */
#include "../wasi.h"

enum { CLOCK = 0x12345678, STDIN = 0x76543210 };

static __wasi_subscription_t timeout(void)
{
    __wasi_subscription_t wanted = {.userdata = CLOCK};
    wanted.u.tag = __WASI_EVENTTYPE_CLOCK;
    wanted.u.u.clock.id = __WASI_CLOCKID_MONOTONIC;
    wanted.u.u.clock.timeout = 200 * 1000 * 1000;
    return wanted;
}

static __wasi_subscription_t readiness(uint64_t userdata, uint8_t tag, __wasi_fd_t fd)
{
    __wasi_subscription_t wanted = {.userdata = userdata};
    wanted.u.tag = tag;
    if (tag == __WASI_EVENTTYPE_FD_READ)
        wanted.u.u.fd_read.file_descriptor = fd;
    else
        wanted.u.u.fd_write.file_descriptor = fd;
    return wanted;
}

static void read_stdin(void)
{
    __wasi_subscription_t wanted[] = {timeout(), readiness(STDIN, __WASI_EVENTTYPE_FD_READ, 0)};
    __wasi_event_t events[2];
    __wasi_size_t count;

    OK(__wasi_poll_oneoff(wanted, events, 2, &count));
    CHECK(count >= 1);
    for (__wasi_size_t i = 0; i < count; i++) {
        CHECK(events[i].error == E(SUCCESS));
        CHECK(events[i].type == __WASI_EVENTTYPE_CLOCK || events[i].type == __WASI_EVENTTYPE_FD_READ);
        CHECK(events[i].userdata == (events[i].type == __WASI_EVENTTYPE_CLOCK ? CLOCK : STDIN));
    }
}

static void write_both(void)
{
    int waiting[3] = {0, 1, 1};
    while (waiting[1] || waiting[2]) {
        __wasi_subscription_t wanted[3] = {timeout()};
        __wasi_event_t events[3];
        __wasi_size_t asked = 1, count;
        for (__wasi_fd_t fd = 1; fd <= 2; fd++)
            if (waiting[fd])
                wanted[asked++] = readiness(fd, __WASI_EVENTTYPE_FD_WRITE, fd);

        OK(__wasi_poll_oneoff(wanted, events, asked, &count));
        for (__wasi_size_t i = 0; i < count; i++) {
            CHECK(events[i].userdata != CLOCK);
            CHECK(events[i].userdata == 1 || events[i].userdata == 2);
            CHECK(waiting[events[i].userdata]);
            CHECK(events[i].type == __WASI_EVENTTYPE_FD_WRITE);
            CHECK(events[i].error == E(SUCCESS));
            waiting[events[i].userdata] = 0;
        }
    }
}

int main(void)
{
    read_stdin();
    write_both();
}
