/* Made by tools/headers.py; not to be edited. */
#ifndef SHIMD_PROTOCOL_H
#define SHIMD_PROTOCOL_H

enum { MAX_FDS = 253, CONTROL = 3, JAIL = 4, HIGH = 512, FAILED = 70, CALL_WORDS = 9, PING = 8 };
enum { NEW_PID = 1, IN_CGROUP = 2, JOIN_PID = 4 };
enum { CALL_OPEN = 0, CALL_BARRIER = 1, CALL_BOUND = 2, CALL_LOAD = 3, CALL_READABLE = 4 };
enum { POLICY_FAIL = 0, POLICY_WARN = 1, POLICY_IF_THERE = 2, POLICY_TRY = 3 };
enum { ROBUST_LIST = 16, ROBUST_HEAD = 24 };
#define SAYS_HELD "{\"type\":\"Held\"}"
#define SAYS_READY "{\"type\":\"Ready\",\"signals\":["
#define SAYS_READY_END "]}"
#define SAYS_ERROR "{\"type\":\"Error\",\"code\":" "%d" ",\"message\":\""
#define SAYS_END "\"}"

#endif
