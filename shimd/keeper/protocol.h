/* Made by tools/headers.py; not to be edited. */
#ifndef SHIMD_PROTOCOL_H
#define SHIMD_PROTOCOL_H

enum { PROTOCOL = 2, MAX_FDS = 253, LISTEN = 3 };
enum { MAX_NAME = 255, MAX_EXITS = 4096, MAX_COMMAND = 4194304 };
enum { HELLO = 1, LIST = 2, QUIT = 3, KEPT = 4, EXITED = 5, LISTED = 6, FAILED = 7, KEEP = 8, DROP = 9, SPAWN = 10, SPAWNED = 11, ACKNOWLEDGE = 12, HOLD = 13, HELD = 14 };
enum { RESTARTS = 1, REMOVES = 1, HANDS_OVER = 2 };

#endif
