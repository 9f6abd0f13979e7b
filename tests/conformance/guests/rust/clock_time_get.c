/* The monotonic clock takes any precision, and does not go back. */
#include "../wasi.h"

int main(void)
{
    __wasi_timestamp_t before, after;
    OK(__wasi_clock_time_get(__WASI_CLOCKID_MONOTONIC, 1, &before));
    OK(__wasi_clock_time_get(__WASI_CLOCKID_MONOTONIC, 0, &before));
    OK(__wasi_clock_time_get(__WASI_CLOCKID_MONOTONIC, 0, &after));
    CHECK(before <= after);
}
