/* A command of Slight: no server, but a capability and WASI. */

#include <stdio.h>
#include <string.h>

int main(void) {
    string name = {"any", 3}, key = {"key", 3};
    keyvalue_list_u8 value = {(uint8_t *)"one", 3};
    uint32_t store = keyvalue_keyvalue_open(name).ok;
    keyvalue_keyvalue_set(store, key, value);
    __auto_type got = keyvalue_keyvalue_get(store, key);
    printf("any: %.*s\n", (int)got.ok.len, (char *)got.ok.ptr);
    char note[32] = "";
    FILE *file = fopen("/data/note", "r");
    if (!file || !fgets(note, sizeof note, file))
        return 1;
    printf("/data/note: %s", note);
    return atoi(getenv("CODE"));
}
