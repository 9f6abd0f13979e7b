/* A descriptor that is not open cannot be shut down. */
#include "../check.h"
#include <sys/socket.h>

int main(void)
{
    REFUSED(shutdown(3, SHUT_RD), EBADF);
}
