//! A socket's settings are what they are set to. None takes 0, and each takes the most that its number can be,
//! and makes of it what it can.
use checks::{check, gives, ok, same};
use wasip3::sockets::types::{ErrorCode, TcpSocket};

use crate::places::FAMILIES;

const SECOND: u64 = 1_000_000_000;

macro_rules! takes {
    ($socket:ident, $set:ident) => {
        gives!($socket.$set(0), Err(ErrorCode::InvalidArgument));
        ok!($socket.$set(1));
    };
}

macro_rules! keeps {
    ($socket:ident, $set:ident, $get:ident, $value:expr) => {
        ok!($socket.$set($value));
        same!(ok!($socket.$get()), $value);
    };
}

pub async fn run() {
    for family in FAMILIES {
        let socket = ok!(TcpSocket::create(family));
        takes!(socket, set_listen_backlog_size);
        ok!(socket.set_listen_backlog_size(u64::MAX));

        takes!(socket, set_keep_alive_idle_time);
        check!((1..=SECOND).contains(&ok!(socket.get_keep_alive_idle_time())));
        ok!(socket.set_keep_alive_idle_time(u64::MAX));
        keeps!(socket, set_keep_alive_idle_time, get_keep_alive_idle_time, 42 * SECOND);

        takes!(socket, set_keep_alive_interval);
        check!((1..=SECOND).contains(&ok!(socket.get_keep_alive_interval())));
        ok!(socket.set_keep_alive_interval(u64::MAX));
        keeps!(socket, set_keep_alive_interval, get_keep_alive_interval, 42 * SECOND);

        takes!(socket, set_keep_alive_count);
        ok!(socket.set_keep_alive_count(u32::MAX));
        keeps!(socket, set_keep_alive_count, get_keep_alive_count, 42);

        takes!(socket, set_hop_limit);
        ok!(socket.set_hop_limit(u8::MAX));
        keeps!(socket, set_hop_limit, get_hop_limit, 42);

        takes!(socket, set_receive_buffer_size);
        ok!(socket.set_receive_buffer_size(u64::MAX));
        keeps!(socket, set_receive_buffer_size, get_receive_buffer_size, 0x10000);

        takes!(socket, set_send_buffer_size);
        ok!(socket.set_send_buffer_size(u64::MAX));
        keeps!(socket, set_send_buffer_size, get_send_buffer_size, 0x10000);

        for alive in [true, false] {
            keeps!(socket, set_keep_alive_enabled, get_keep_alive_enabled, alive);
        }
    }
}
