/* Directories list ".", ".." and each entry once, with type and inode; a cookie continues where its entry ends. */
#include "../dir.h"

enum { BUFFER = 256, MOST = 16, MANY = 100 };

struct entry {
    __wasi_dirent_t head;
    char name[32];
};

/* One call's entries that fit whole; whether they are the last. */
static int list(fd_t dir, __wasi_dircookie_t cookie, struct entry *entries, int *count)
{
    uint8_t buffer[BUFFER];
    __wasi_size_t used, at = 0;
    OK(__wasi_fd_readdir(dir, buffer, sizeof buffer, cookie, &used));
    CHECK(used <= sizeof buffer);
    for (*count = 0; used - at >= sizeof(__wasi_dirent_t); ++*count) {
        struct entry *entry = &entries[*count];
        CHECK(*count < MOST);
        memcpy(&entry->head, buffer + at, sizeof entry->head);
        at += sizeof entry->head;
        if (used - at < entry->head.d_namlen)
            break;
        CHECK(entry->head.d_namlen < sizeof entry->name);
        memcpy(entry->name, buffer + at, entry->head.d_namlen);
        entry->name[entry->head.d_namlen] = '\0';
        at += entry->head.d_namlen;
    }
    return used < sizeof buffer;
}

static const struct entry *named(const struct entry *entries, int count, const char *name)
{
    const struct entry *found = NULL;
    for (int i = 0; i < count; i++)
        if (strcmp(entries[i].name, name) == 0) {
            CHECK(found == NULL);
            found = &entries[i];
        }
    return found;
}

static void empty(fd_t dir)
{
    struct entry entries[MOST];
    int count;
    CHECK(list(dir, 0, entries, &count));
    CHECK(count == 2);
    const struct entry *self = named(entries, count, "."), *parent = named(entries, count, "..");
    CHECK(self != NULL);
    CHECK(self->head.d_type == __WASI_FILETYPE_DIRECTORY);
    CHECK(self->head.d_ino == STAT(dir).ino);
    CHECK(parent != NULL);
    CHECK(parent->head.d_type == __WASI_FILETYPE_DIRECTORY);
}

static void one_file(fd_t dir)
{
    struct entry entries[MOST], last[MOST];
    int count;
    fd_t file = OPEN(dir, "file", O(CREAT), R(FD_READ) | R(FD_WRITE) | R(FD_READDIR) | R(FD_FILESTAT_GET));
    __wasi_inode_t inode = STAT(file).ino;
    CLOSE(file);

    CHECK(list(dir, 0, entries, &count));
    CHECK(count == 3);
    CHECK(named(entries, count, ".") != NULL);
    CHECK(named(entries, count, "..") != NULL);
    const struct entry *entry = named(entries, count, "file");
    CHECK(entry != NULL);
    CHECK(entry->head.d_type == __WASI_FILETYPE_REGULAR_FILE);
    CHECK(entry->head.d_ino == inode);

    CHECK(list(dir, entries[1].head.d_next, last, &count));
    CHECK(count == 1);
    CHECK(strcmp(last[0].name, entries[2].name) == 0);
    UNLINK(dir, "file");
}

static void many_files(fd_t dir)
{
    struct entry entries[MOST];
    __wasi_dircookie_t cookie = 0;
    char name[32];
    int total = 0, count, ended;
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "file.%d", i);
        CREATE(dir, name);
    }
    do {
        ended = list(dir, cookie, entries, &count);
        CHECK(ended || count > 0);
        total += count;
        if (count)
            cookie = entries[count - 1].head.d_next;
    } while (!ended);
    CHECK(total == MANY + 2);
    for (int i = 0; i < MANY; i++) {
        snprintf(name, sizeof name, "file.%d", i);
        UNLINK(dir, name);
    }
}

static void test(fd_t dir)
{
    empty(dir);
    one_file(dir);
    many_files(dir);
}

ON_SCRATCH(test)
