/* The monotonic clock never goes back. */
#include "../check.h"
#include <time.h>

static long long nanoseconds(void)
{
    struct timespec now;
    WORKS(clock_gettime(CLOCK_MONOTONIC, &now));
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

int main(void)
{
    long long before = nanoseconds(), after = nanoseconds();
    CHECK(before <= after);
}
