/* Reads and writes at offsets, in one piece and in two, which may each do less than they were asked for. */
#include "../dir.h"

static void write_in_pieces(fd_t file, const uint8_t *data)
{
    for (__wasi_size_t done = 0, count; done < 4; done += count) {
        __wasi_size_t left = 4 - done, first = left > 2 ? 2 : left;
        __wasi_ciovec_t pieces[2] = {{data + done, first}, {data + done + first, left - first}};
        OK(__wasi_fd_pwrite(file, pieces, left > 2 ? 2 : 1, done, &count));
        CHECK(count > 0);
    }
}

static void read_in_pieces(fd_t file, const uint8_t *expected)
{
    uint8_t whole[4];
    __wasi_size_t done = 0;
    for (;;) {
        uint8_t part[4];
        __wasi_iovec_t pieces[2] = {{part, 2}, {part + 2, 2}};
        __wasi_size_t count;
        OK(__wasi_fd_pread(file, pieces, 2, done, &count));
        CHECK(done + count <= 4);
        memcpy(whole + done, part, count);
        done += count;
        if (count == 0)
            break;
    }
    CHECK(done == 4);
    CHECK(memcmp(whole, expected, 4) == 0);
}

static void test(fd_t dir)
{
    const uint8_t data[4] = {0, 1, 2, 3}, patch[2] = {1, 0}, patched[4] = {0, 1, 1, 0}, tail[4] = {2, 3, 0, 0};
    uint8_t read[4] = {9, 9, 9, 9}, end[4] = {0};
    __wasi_ciovec_t all = {data, 4}, two = {patch, 2};
    __wasi_iovec_t into = {read, 4}, into_end = {end, 4};
    __wasi_size_t count;
    fd_t file = OPEN(dir, "file", O(CREAT), R(FD_READ) | R(FD_WRITE) | R(FD_SEEK));

    OK(__wasi_fd_pwrite(file, &all, 1, 0, &count));
    CHECK(count == 4);
    OK(__wasi_fd_pread(file, &into, 1, 0, &count));
    CHECK(count == 4);
    CHECK(memcmp(read, data, 4) == 0);

    write_in_pieces(file, data);
    read_in_pieces(file, data);

    OK(__wasi_fd_pread(file, &into_end, 1, 2, &count));
    CHECK(count == 2);
    CHECK(memcmp(end, tail, 4) == 0);

    OK(__wasi_fd_pwrite(file, &two, 1, 2, &count));
    CHECK(count == 2);
    OK(__wasi_fd_pread(file, &into, 1, 0, &count));
    CHECK(count == 4);
    CHECK(memcmp(read, patched, 4) == 0);

    CLOSE(file);
    UNLINK(dir, "file");
}

ON_SCRATCH(test)
