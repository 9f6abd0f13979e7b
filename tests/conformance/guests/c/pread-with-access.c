/* pread reads from where it is told. */
#include "../check.h"
#include <fcntl.h>
#include <unistd.h>

int main(void)
{
    char text[4] = "";
    int fd = WORKS(open("pread.txt", O_RDONLY));

    for (long done = 0; done < 3;) {
        long count = WORKS(pread(fd, text + done, 3 - done, 4 + done));
        CHECK(count > 0);
        done += count;
    }
    CHECK(strcmp(text, "d-t") == 0);
    WORKS(close(fd));
}
