/* The wall clock tells its resolution. */
#include "../check.h"
#include <time.h>

int main(void)
{
    struct timespec resolution;
    WORKS(clock_getres(CLOCK_REALTIME, &resolution));
}
