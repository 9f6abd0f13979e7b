//! A server tells its address, takes a connection, and gives back what it is sent.
use checks::{ok, same, some};
use wasip3::sockets::types::TcpSocket;
use wasip3::wit_bindgen::StreamResult;

use crate::places::{loopback, port, Ipv4};
use crate::streams::put;

pub async fn run() {
    let server = ok!(TcpSocket::create(Ipv4));
    ok!(server.bind(loopback(Ipv4, 0)));
    let mut connections = ok!(server.listen());
    println!("127.0.0.1:{}", port(&ok!(server.get_local_address())));

    let connection = some!(connections.next().await);
    let (mut input, done) = connection.receive();
    let (result, text) = input.read(Vec::with_capacity(100)).await;
    same!(result, StreamResult::Complete(text.len()));
    drop(input);
    ok!(done.await);

    put!(&text, |stream| connection.send(stream));
}
