/* O_APPEND sends each write to the end; pwrite leaves the position alone, and may write at its offset (POSIX) or at the
   end (Linux). */
#include "../check.h"
#include <fcntl.h>
#include <unistd.h>

int main(void)
{
    int fd = WORKS(open("appended", O_CREAT | O_TRUNC | O_WRONLY | O_APPEND, 0666));

    CHECK(write(fd, "ab", 2) == 2);
    CHECK(lseek(fd, 0, SEEK_SET) == 0);
    CHECK(write(fd, "cd", 2) == 2);
    CHECK(lseek(fd, 0, SEEK_CUR) == 4);

    CHECK(pwrite(fd, "efg", 3, 0) == 3);
    CHECK(lseek(fd, 0, SEEK_CUR) == 4);
    off_t end = lseek(fd, 0, SEEK_END);
    CHECK(end == 4 || end == 7);
    WORKS(close(fd));
}
