//! The tests, a file each.

/// What a test returns.
trait Done {
    fn done(self) -> Result<(), ()>;
}

impl Done for () {
    fn done(self) -> Result<(), ()> {
        Ok(())
    }
}

impl Done for Result<(), ()> {
    fn done(self) -> Result<(), ()> {
        self
    }
}

macro_rules! cases {
    ($($name:ident)*) => {
        $(mod $name;)*

        pub async fn run(name: &str) -> Result<(), ()> {
            match name {
                $(stringify!($name) => $name::run().await.done(),)*
                _ => panic!("there is no test {name}"),
            }
        }
    };
}

cases! {
    cli_env
    cli_exit
    cli_stdio
    cli_stdio_roundtrip
    cli_stdout_flush
    cli_terminal
    filesystem_advise
    filesystem_dotdot
    filesystem_flags_and_type
    filesystem_hard_links
    filesystem_io
    filesystem_is_same_object
    filesystem_metadata_hash
    filesystem_mkdir_rmdir
    filesystem_open_errors
    filesystem_read_directory
    filesystem_rename
    filesystem_set_size
    filesystem_stat
    filesystem_unlink_errors
    http_fields
    http_request
    http_request_options
    http_response
    monotonic_clock
    multi_clock_wait
    random
    run_with_err
    sockets_echo
    sockets_tcp_bind
    sockets_tcp_connect
    sockets_tcp_listen
    sockets_tcp_properties
    sockets_tcp_receive
    sockets_tcp_send
    sockets_udp_bind
    sockets_udp_connect
    sockets_udp_properties
    sockets_udp_receive
    sockets_udp_send
    wall_clock
}
