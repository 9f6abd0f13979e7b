/* The wall clock tells the time. */
#include "../check.h"
#include <time.h>

int main(void)
{
    struct timespec now;
    WORKS(clock_gettime(CLOCK_REALTIME, &now));
}
