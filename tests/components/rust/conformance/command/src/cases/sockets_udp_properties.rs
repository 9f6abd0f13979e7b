//! A socket's settings are what they are set to. None takes 0, and each takes the most that its number can be,
//! and makes of it what it can.
use checks::{gives, ok, same};
use wasip3::sockets::types::{ErrorCode, UdpSocket};

use crate::places::FAMILIES;

macro_rules! setting {
    ($socket:ident, $set:ident, $get:ident, $most:expr, $value:expr) => {
        gives!($socket.$set(0), Err(ErrorCode::InvalidArgument));
        ok!($socket.$set(1));
        ok!($socket.$set($most));
        ok!($socket.$set($value));
        same!(ok!($socket.$get()), $value);
    };
}

pub async fn run() {
    for family in FAMILIES {
        let socket = ok!(UdpSocket::create(family));
        setting!(socket, set_unicast_hop_limit, get_unicast_hop_limit, u8::MAX, 42);
        setting!(socket, set_receive_buffer_size, get_receive_buffer_size, u64::MAX, 0x10000);
        setting!(socket, set_send_buffer_size, get_send_buffer_size, u64::MAX, 0x10000);
    }
}
