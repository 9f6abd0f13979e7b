/* An HTTP application of Slight: each route shows a capability. Bindings come from bindings.py, by -include. */

#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef http_handler_request request;
typedef http_handler_expected_response_http_error answer;

static string text(const char *chars) { return (string){(char *)chars, strlen(chars)}; }

static string made(const void *from, size_t len) {
    char *copy = malloc(len + 1);
    memcpy(copy, from, len);
    return (string){copy, len};
}

static answer respond(int status, string body) {
    answer given = {0};
    given.ok.status = status;
    given.ok.body.some = 1;
    given.ok.body.value.ptr = (uint8_t *)body.ptr;
    given.ok.body.value.len = body.len;
    return given;
}

static string param(request req, const char *name) {
    for (size_t i = 0; i < req.params.len; i++)
        if (req.params.ptr[i].f0.len == strlen(name) && !memcmp(req.params.ptr[i].f0.ptr, name, strlen(name)))
            return req.params.ptr[i].f1;
    return text("");
}

/* An error of a capability: its case's number and text. All of these variants are laid out alike. */
static answer failed(int status, uint8_t tag, string why) {
    char *body = malloc(why.len + 32);
    int len = sprintf(body, "error %d: ", tag);
    memcpy(body + len, why.ptr, why.len);
    return respond(status, (string){body, len + why.len});
}
#define TRY(call) ({ __auto_type _got = (call); \
    if (_got.failed) return failed(409, _got.err.tag, _got.err.unexpected_error); _got.ok; })
#define DO(call) ({ __auto_type _got = (call); \
    if (_got.failed) return failed(409, _got.err.tag, _got.err.unexpected_error); })
#define BYTES(type, value) ((type){(uint8_t *)(value).ptr, (value).len})
#define STRING(value) ((string){(char *)(value).ptr, (value).len})

static string body_of(request req) { return req.body.some ? STRING(req.body.value) : text(""); }

static int instances;

static answer handle_hello(request req) {
    char said[64];
    return respond(200, made(said, sprintf(said, "hello %d", ++instances)));
}

static answer handle_person(request req) {
    string name = param(req, "name"), rest = param(req, "*");
    char *said = malloc(name.len + rest.len + 64);
    int len = sprintf(said, "%d %.*s [%.*s][%.*s]", req.method, (int)req.uri.len, req.uri.ptr, (int)name.len, name.ptr,
                      (int)rest.len, rest.ptr);
    return respond(200, (string){said, len});
}

/* The request's headers and body again, as Slight's own examples answer. */
static answer handle_echo(request req) {
    answer given = respond(201, body_of(req));
    given.ok.headers.some = 1;
    given.ok.headers.value.ptr = (void *)req.headers.ptr;
    given.ok.headers.value.len = req.headers.len;
    return given;
}

static answer handle_kv_get(request req) {
    uint32_t store = TRY(keyvalue_keyvalue_open(param(req, "store")));
    keyvalue_expected_list_u8_keyvalue_error value = keyvalue_keyvalue_get(store, param(req, "key"));
    keyvalue_keyvalue_drop(store);
    if (value.failed)
        return failed(value.err.tag == 0 ? 404 : 409, value.err.tag, value.err.key_not_found);
    return respond(200, STRING(value.ok));
}

static answer handle_kv_set(request req) {
    uint32_t store = TRY(keyvalue_keyvalue_open(param(req, "store")));
    DO(keyvalue_keyvalue_set(store, param(req, "key"), BYTES(keyvalue_list_u8, body_of(req))));
    return respond(204, text(""));
}

static answer handle_kv_delete(request req) {
    uint32_t store = TRY(keyvalue_keyvalue_open(param(req, "store")));
    DO(keyvalue_keyvalue_delete(store, param(req, "key")));
    return respond(204, text(""));
}

static answer handle_kv_keys(request req) {
    uint32_t store = TRY(keyvalue_keyvalue_open(param(req, "store")));
    uint32_t other = keyvalue_keyvalue_clone(store);
    keyvalue_keyvalue_drop(store);
    keyvalue_list_string keys = TRY(keyvalue_keyvalue_keys(other));
    size_t len = 0;
    for (size_t i = 0; i < keys.len; i++)
        len += keys.ptr[i].len + 1;
    char *said = malloc(len + 1), *end = said;
    for (size_t i = 0; i < keys.len; i++)
        end += sprintf(end, "%.*s\n", (int)keys.ptr[i].len, keys.ptr[i].ptr);
    return respond(200, (string){said, len});
}

static answer handle_publish(request req) {
    uint32_t pub = TRY(messaging_pub_open(param(req, "broker")));
    DO(messaging_pub_publish(pub, BYTES(messaging_list_u8, body_of(req)), param(req, "topic")));
    return respond(204, text(""));
}

static answer handle_subscribe(request req) {
    uint32_t sub = TRY(messaging_sub_open(param(req, "broker")));
    return respond(200, TRY(messaging_sub_subscribe(sub, param(req, "topic"))));
}

static answer handle_receive(request req) {
    uint32_t sub = TRY(messaging_sub_open(param(req, "broker")));
    messaging_list_u8 message = TRY(messaging_sub_receive(sub, param(req, "token")));
    return respond(200, STRING(message));
}

/* The body's first line is the statement, the others are its parameters. */
static uint32_t prepared(request req) {
    string lines[16], body = body_of(req);
    size_t count = 0;
    for (char *at = body.ptr, *end = body.ptr + body.len; at < end && count < 16;) {
        char *stop = memchr(at, '\n', end - at);
        if (!stop)
            stop = end;
        lines[count++] = (string){at, stop - at};
        at = stop + 1;
    }
    return sql_statement_prepare(lines[0], (sql_list_string){lines + 1, count - 1});
}

static answer handle_query(request req) {
    uint32_t database = TRY(sql_sql_open(param(req, "database")));
    sql_list_row_item rows = TRY(sql_sql_query(database, prepared(req)));
    char *said = malloc(1 << 16), *end = said;
    for (size_t i = 0; i < rows.len; i++) {
        sql_data_type v = rows.ptr[i].value;
        end += sprintf(end, "%.*s=%d:", (int)rows.ptr[i].field_name.len, rows.ptr[i].field_name.ptr, v.tag);
        switch (v.tag) {
        case 0: end += sprintf(end, "%d", v.int32); break;
        case 1: end += sprintf(end, "%lld", (long long)v.int64); break;
        case 2: end += sprintf(end, "%u", v.uint32); break;
        case 4: case 5: end += sprintf(end, "%g", v.double_); break;
        case 7: end += sprintf(end, "%d", v.boolean); break;
        case 12: break;
        default: end += sprintf(end, "%.*s", (int)v.str.len, v.str.ptr);
        }
        *end++ = '\n';
    }
    return respond(200, (string){said, end - said});
}

static answer handle_exec(request req) {
    uint32_t database = TRY(sql_sql_open(param(req, "database")));
    DO(sql_sql_exec(database, prepared(req)));
    return respond(204, text(""));
}

static answer handle_lock(request req) {
    uint32_t locks = TRY(distributed_locking_distributed_locking_open(text("locks")));
    distributed_locking_list_u8 name = BYTES(distributed_locking_list_u8, param(req, "name"));
    distributed_locking_list_u8 key =
        param(req, "seconds").len
            ? TRY(distributed_locking_distributed_locking_lock_with_time_to_live(locks, name,
                                                                                 atoll(param(req, "seconds").ptr)))
            : TRY(distributed_locking_distributed_locking_lock(locks, name));
    return respond(200, STRING(key));
}

static answer handle_unlock(request req) {
    uint32_t locks = TRY(distributed_locking_distributed_locking_open(text("locks")));
    DO(distributed_locking_distributed_locking_unlock(locks, BYTES(distributed_locking_list_u8, body_of(req))));
    return respond(204, text(""));
}

static answer handle_config_get(request req) {
    uint32_t configs = TRY(configs_configs_open(param(req, "store")));
    configs_list_u8 value = TRY(configs_configs_get(configs, param(req, "key")));
    return respond(200, STRING(value));
}

static answer handle_config_set(request req) {
    uint32_t configs = TRY(configs_configs_open(param(req, "store")));
    DO(configs_configs_set(configs, param(req, "key"), BYTES(configs_list_u8, body_of(req))));
    return respond(204, text(""));
}

static answer handle_fetch(request req) {
    http_client_tuple_string_string sent[] = {{text("x-asked"), text("yes")}};
    http_client_request wanted = {0};
    wanted.method = req.method;
    wanted.uri = body_of(req);
    wanted.headers.ptr = sent;
    wanted.headers.len = 1;
    http_client_response got = TRY(http_client_request_(wanted));
    return respond(got.status, got.body.some ? STRING(got.body.value) : text("none"));
}

static answer handle_blob(request req) {
    DO(blob_store_container_open(text("blobs")));
    return respond(204, text(""));
}

static answer handle_bad(request req) {
    string what = param(req, "what");
    answer given = {0};
    if (!strncmp(what.ptr, "trap", what.len))
        __builtin_trap();
    if (!strncmp(what.ptr, "spin", what.len))
        for (volatile int i = 0;; i++);
    if (!strncmp(what.ptr, "slow", what.len)) {
        puts("working");
        fflush(stdout);
        sleep(2);
        return respond(200, text("finished"));
    }
    if (!strncmp(what.ptr, "exit", what.len))
        exit(3);
    if (!strncmp(what.ptr, "handle", what.len))
        keyvalue_keyvalue_keys(77);
    if (!strncmp(what.ptr, "pointer", what.len))
        keyvalue_keyvalue_open((string){(char *)0x7fff0000, 99});
    given.failed = 1;
    if (!strncmp(what.ptr, "gone", what.len)) {
        given.err.tag = 3;
        given.err.status_error = 410;
    } else {
        given.err.tag = 4;
        given.err.unexpected_error = text("as was asked");
    }
    return given;
}

/* Where to listen: a variable of the container's, by the configs capability, if there is one. */
__attribute__((unused)) static string address(void) {
    __auto_type configs = configs_configs_open(text("settings"));
    if (configs.failed)
        return text("0.0.0.0:3000");
    __auto_type value = configs_configs_get(configs.ok, text("APP_ADDRESS"));
    return value.failed ? text("0.0.0.0:3000") : STRING(value.ok);
}

#define ROUTE(method, path, handler) do { \
    __auto_type _next = http_server_router_##method(router, text(path), text(handler)); \
    if (_next.failed) { given.failed = 1; given.err = _next.err.unexpected_error; return given; } \
    http_server_router_drop(router); \
    router = _next.ok; } while (0)

static http_server_export_expected_unit_string on_server_init(void) {
    http_server_export_expected_unit_string given = {0};
    uint32_t router = http_server_router_new().ok;
    ROUTE(get, "/hello", "handle_hello");
    ROUTE(get, "/person/:name", "handle_person");
    ROUTE(get, "/person/:name/files/*", "handle_person");
    ROUTE(post, "/echo", "handle_echo");
    ROUTE(get, "/kv/:store", "handle_kv_keys");
    ROUTE(get, "/kv/:store/:key", "handle_kv_get");
    ROUTE(put, "/kv/:store/:key", "handle_kv_set");
    ROUTE(delete, "/kv/:store/:key", "handle_kv_delete");
    ROUTE(post, "/publish/:broker/:topic", "handle_publish");
    ROUTE(post, "/subscribe/:broker/:topic", "handle_subscribe");
    ROUTE(get, "/receive/:broker/:token", "handle_receive");
    ROUTE(post, "/query/:database", "handle_query");
    ROUTE(post, "/exec/:database", "handle_exec");
    ROUTE(post, "/lock/:name", "handle_lock");
    ROUTE(post, "/lock/:name/:seconds", "handle_lock");
    ROUTE(post, "/unlock", "handle_unlock");
    ROUTE(get, "/config/:store/:key", "handle_config_get");
    ROUTE(put, "/config/:store/:key", "handle_config_set");
    ROUTE(post, "/fetch", "handle_fetch");
    ROUTE(put, "/fetch", "handle_fetch");
    ROUTE(get, "/blob", "handle_blob");
    ROUTE(get, "/bad/:what", "handle_bad");
#ifdef NO_HANDLER
    ROUTE(get, "/nobody", "handle_nobody");
#endif
#ifdef FAILS
    given.failed = 1;
    given.err = text("the guest does not like it here");
    return given;
#endif
#ifdef SPINS
    puts("spinning");
    fflush(stdout);
    for (volatile int i = 0;; i++);
#endif
#ifdef TRAPS
    __builtin_trap();
#endif
#ifndef NO_SERVE
    puts("starting the server");
    __auto_type server = http_server_server_serve(address(), router);
    fflush(stdout);
    if (server.failed) {
        given.failed = 1;
        given.err = server.err.unexpected_error;
    }
#endif
    return given;
}
