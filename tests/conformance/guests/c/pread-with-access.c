/* pread reads from where it is told. */
#include "../check.h"
#include <fcntl.h>
#include <unistd.h>

int main(void)
{
    char text[6] = "";
    int fd = WORKS(open("pread.txt", O_RDONLY));

    for (long done = 0; done < 5;) {
        long count = WORKS(pread(fd, text + done, 5 - done, 5 + done));
        CHECK(count > 0);
        done += count;
    }
    CHECK(strcmp(text, "bytes") == 0);
    WORKS(close(fd));
}
