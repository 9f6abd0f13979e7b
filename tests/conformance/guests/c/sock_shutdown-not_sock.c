/* A descriptor that is no socket cannot be shut down. */
#include "../check.h"
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
    REFUSED(shutdown(STDOUT_FILENO, SHUT_RD), ENOTSOCK);
}
