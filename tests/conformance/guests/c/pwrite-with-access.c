/* pwrite writes where it is told, over what is there. */
#include "../check.h"
#include <fcntl.h>
#include <unistd.h>

#define NAME "writeable/pwritten"

static void put(int fd, const char *text, off_t offset)
{
    for (size_t left = strlen(text); left > 0;) {
        long count = WORKS(pwrite(fd, text, left, offset));
        CHECK(count > 0);
        text += count, offset += count, left -= count;
    }
}

int main(void)
{
    char text[16] = "";
    size_t length = 0;

    CHECK(access(NAME, F_OK) != 0);
    int fd = WORKS(open(NAME, O_WRONLY | O_CREAT, 0666));
    put(fd, "one two three", 0);
    put(fd, "2 + 2", 4);
    WORKS(close(fd));

    fd = WORKS(open(NAME, O_RDONLY));
    for (long count; (count = WORKS(read(fd, text + length, sizeof text - length))) > 0;)
        length += count;
    CHECK(length == 13 && memcmp(text, "one 2 + 2hree", length) == 0);
    WORKS(close(fd));
    WORKS(remove(NAME));
}
