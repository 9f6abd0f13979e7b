//! A server of WASI 0.3, of a few paths.
use std::fmt::Debug;
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use wasip3::exports::http::handler::Guest;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Request, Response, Scheme};
use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types as sockets;
use wasip3::sockets::types::{IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket, UdpSocket};
use wasip3::wit_bindgen::{spawn_local, FutureReader, StreamReader};
use wasip3::{wit_future, wit_stream};

wasip3::http::service::export!(Server);

struct Server;

/// Specks that have been taken, by all requests to this instance.
static WRITTEN: AtomicUsize = AtomicUsize::new(0);

type Trailers = FutureReader<Result<Option<Fields>, ErrorCode>>;

impl Guest for Server {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/" => Ok(say(200, "hello from Rust\n")),
            "/echo" => {
                let (body, trailers) = Request::consume_body(request, done());
                Ok(answer(200, &[], Some(body), trailers))
            }
            "/pieces" => Ok(pieces(query.parse().unwrap_or(1))),
            "/times" => Ok(times(query)),
            "/specks" => Ok(specks(query.parse().unwrap_or(1))),
            "/written" => Ok(say(200, &WRITTEN.load(Ordering::Relaxed).to_string())),
            "/ask" => ask(query).await,
            "/tcp" => Ok(became(socket().connect(address(query)).await)),
            "/udp" => Ok(became(udp(address(query)).await)),
            "/lookup" => Ok(became(resolve_addresses(query.into()).await.map(drop))),
            "/bind" => Ok(became(socket().bind(address(query)))),
            "/panic" => panic!("on purpose"),
            "/grow" => grow(),
            _ => Ok(answer(404, &[], None, no_trailers())),
        }
    }
}

/// Takes all memory that it can have, without a use for it.
fn grow() -> ! {
    #[cfg(target_arch = "wasm32")] // it is also examined for the machine's own
    while core::arch::wasm32::memory_grow::<0>(256) != usize::MAX {}
    panic!("there is no more memory");
}

fn done() -> FutureReader<Result<(), ErrorCode>> {
    wit_future::new(|| Ok(())).1
}

fn no_trailers() -> Trailers {
    wit_future::new(|| Ok(None)).1
}

fn answer(status: u16, headers: &[(String, Vec<u8>)], body: Option<StreamReader<u8>>, trailers: Trailers) -> Response {
    let fields = Fields::from_list(headers).expect("headers that may be sent");
    let (response, _sent) = Response::new(fields, body, trailers);
    response.set_status_code(status).expect("a status");
    response
}

fn say(status: u16, text: &str) -> Response {
    let (mut writer, body) = wit_stream::new();
    let bytes = text.as_bytes().to_vec();
    spawn_local(async move {
        writer.write_all(bytes).await;
    });
    answer(status, &[("content-type".into(), b"text/plain".to_vec())], Some(body), no_trailers())
}

/// So many times 4 KiB, one after the other.
fn pieces(count: usize) -> Response {
    let (mut writer, body) = wit_stream::new();
    spawn_local(async move {
        for _ in 0..count {
            if !writer.write_all(vec![b'x'; 4096]).await.is_empty() {
                return; // nobody reads it any more
            }
        }
    });
    answer(200, &[], Some(body), no_trailers())
}

/// When each of four lines was written, in nanoseconds. After each it is busy for a second, as the query says.
fn times(busy: &str) -> Response {
    let (mut writer, body) = wit_stream::new();
    let computes = busy == "computes";
    spawn_local(async move {
        for _ in 0..4 {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_nanos();
            writer.write_all(format!("{now}\n").into_bytes()).await;
            let second = Duration::from_secs(1);
            if computes {
                let begun = Instant::now();
                while begun.elapsed() < second {}
            } else {
                sleep(second); // a call of WASI 0.2
            }
        }
    });
    answer(200, &[], Some(body), no_trailers())
}

/// So many times one byte.
fn specks(count: usize) -> Response {
    let (mut writer, body) = wit_stream::new();
    spawn_local(async move {
        for _ in 0..count {
            if !writer.write_all(vec![b'.']).await.is_empty() {
                return;
            }
            WRITTEN.fetch_add(1, Ordering::Relaxed);
        }
    });
    answer(200, &[], Some(body), no_trailers())
}

fn socket() -> TcpSocket {
    TcpSocket::create(IpAddressFamily::Ipv4).expect("a socket")
}

/// Sends a datagram.
async fn udp(to: IpSocketAddress) -> Result<(), sockets::ErrorCode> {
    let socket = UdpSocket::create(IpAddressFamily::Ipv4).expect("a socket");
    socket.send(b"a datagram".to_vec(), Some(to)).await
}

fn address(text: &str) -> IpSocketAddress {
    let it: SocketAddrV4 = text.parse().expect("an address of IPv4 and a port");
    let [a, b, c, d] = it.ip().octets();
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port: it.port(), address: (a, b, c, d) })
}

fn became<E: Debug>(result: Result<(), E>) -> Response {
    say(200, &result.map_or_else(|error| format!("{error:?}"), |()| "done".to_owned()))
}

/// Asks the server that the query names, and hands its answer on.
async fn ask(place: &str) -> Result<Response, ErrorCode> {
    let (authority, path) = place.split_at(place.find('/').unwrap_or(place.len()));
    let (request, _sent) = Request::new(Fields::new(), None, no_trailers(), None);
    request.set_scheme(Some(&Scheme::Http)).expect("a scheme");
    request.set_authority(Some(authority)).expect("an authority");
    request.set_path_with_query(Some(if path.is_empty() { "/" } else { path })).expect("a path");
    let asked = client::send(request).await?;
    let status = asked.get_status_code();
    let (body, trailers) = Response::consume_body(asked, done());
    Ok(answer(status, &[], Some(body), trailers))
}
