;; Middleware of WASI 0.3. What it does is the letter after "layer:", which tests change: it lets in those with the header
;; "authorization" (a), lets in who may read a variable (v), makes an inner 200 a 203, and what is not a 599 (i), or counts
;; one on from the status (o).
(module
  (import "wasi:http/handler@0.3.0" "handle" (func $next (param i32 i32)))
  (import "wasi:http/types@0.3.0" "[method]request.get-headers" (func $headers (param i32) (result i32)))
  (import "wasi:http/types@0.3.0" "[method]fields.has" (func $has (param i32 i32 i32) (result i32)))
  (import "wasi:http/types@0.3.0" "[constructor]fields" (func $fields (result i32)))
  (import "wasi:http/types@0.3.0" "[resource-drop]fields" (func $drop_fields (param i32)))
  (import "wasi:http/types@0.3.0" "[resource-drop]request" (func $drop_request (param i32)))
  (import "wasi:http/types@0.3.0" "[method]response.get-status-code" (func $status (param i32) (result i32)))
  (import "wasi:http/types@0.3.0" "[method]response.set-status-code" (func $set (param i32 i32) (result i32)))
  (import "wasi:http/types@0.3.0" "[static]response.new" (func $response (param i32 i32 i32 i32 i32)))
  (import "wasi:http/types@0.3.0" "[future-new-1][static]response.new" (func $future (result i64)))
  (import "wasi:http/types@0.3.0" "[async-lower][future-write-1][static]response.new"
    (func $write (param i32 i32) (result i32)))
  (import "wasi:http/types@0.3.0" "[future-drop-readable-2][static]response.new" (func $drop_sent (param i32)))
  (import "spin:variables/variables@3.0.0" "get" (func $variable (param i32 i32 i32)))
  (memory (export "memory") 2)
  (global $free (mut i32) (i32.const 4096))
  (data (i32.const 512) "layer:oauthorizationword")
  (func (export "cabi_realloc") (param i32 i32 i32 i32) (result i32)
    (global.set $free (i32.and (i32.add (global.get $free) (i32.const 15)) (i32.const -16)))
    (global.get $free)
    (global.set $free (i32.add (global.get $free) (local.get 3))))
  (func $is (param $letter i32) (result i32)
    (i32.eq (i32.load8_u (i32.const 518)) (local.get $letter)))
  ;; An answer without a body: its trailers are none, which the zeros at 1024 say.
  (func $refuse (param $status i32) (result i32)
    (local $ends i64)
    (local.set $ends (call $future))
    (call $response (call $fields) (i32.const 0) (i32.const 0) (i32.wrap_i64 (local.get $ends)) (i32.const 128))
    (drop (call $write (i32.wrap_i64 (i64.shr_u (local.get $ends) (i64.const 32))) (i32.const 1024)))
    (call $drop_sent (i32.load (i32.const 132)))
    (drop (call $set (i32.load (i32.const 128)) (local.get $status)))
    (i32.store (i32.const 256) (i32.const 0))
    (i32.store (i32.const 264) (i32.load (i32.const 128)))
    (i32.const 256))
  (func (export "wasi:http/handler@0.3.0#handle") (param $request i32) (result i32)
    (local $found i32) (local $answer i32) (local $code i32)
    (if (call $is (i32.const 97)) (then ;; a
      (local.set $found (call $headers (local.get $request)))
      (local.set $code (call $has (local.get $found) (i32.const 519) (i32.const 13)))
      (call $drop_fields (local.get $found))
      (if (i32.eqz (local.get $code)) (then
        (call $drop_request (local.get $request))
        (return (call $refuse (i32.const 401)))))))
    (if (call $is (i32.const 118)) (then ;; v
      (call $variable (i32.const 532) (i32.const 4) (i32.const 128))
      (if (i32.load8_u (i32.const 128)) (then
        (call $drop_request (local.get $request))
        (return (call $refuse (i32.const 403)))))))
    (call $next (local.get $request) (i32.const 256))
    (if (i32.load8_u (i32.const 256)) (then (return (i32.const 256))))
    (local.set $answer (i32.load (i32.const 264)))
    (local.set $code (call $status (local.get $answer)))
    (if (call $is (i32.const 105)) (then ;; i
      (drop (call $set (local.get $answer)
        (select (i32.const 203) (i32.const 599) (i32.eq (local.get $code) (i32.const 200)))))))
    (if (call $is (i32.const 111)) (then ;; o
      (drop (call $set (local.get $answer) (i32.add (local.get $code) (i32.const 1))))))
    (i32.const 256)))
