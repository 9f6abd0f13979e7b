//! A server with wstd, of many paths: each shows one thing.
use std::future::{poll_fn, Future};
use std::net::SocketAddrV4;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use wasi::sockets::instance_network::instance_network;
use wasi::sockets::ip_name_lookup::resolve_addresses;
use wasi::sockets::network::{ErrorCode, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress};
use wasi::sockets::tcp_create_socket::create_tcp_socket;
use wstd::http::body::{BodyForthcoming, IncomingBody};
use wstd::http::server::{Finished, Responder};
use wstd::http::{Client, HeaderMap, HeaderValue, IntoBody, Request, Response, StatusCode};
use wstd::io::{copy, empty, AsyncRead, AsyncWrite};
use wstd::time::Duration;

/// An instance's own: each request has another.
static REQUESTS: AtomicUsize = AtomicUsize::new(0);

#[wstd::http_server]
async fn main(request: Request<IncomingBody>, responder: Responder) -> Finished {
    let path = request.uri().path().to_owned();
    match path.as_str() {
        "/" => say(responder, StatusCode::OK, "hello from Rust\n".into()).await,
        "/about" => about(request, responder).await,
        "/echo" => echo(request, responder).await,
        "/count" => count(request, responder).await,
        "/ticks" => ticks(responder).await,
        "/pieces" => pieces(request, responder).await,
        "/ask" => ask(request, responder).await,
        "/ask-many" => ask_many(request, responder).await,
        "/trailers" => trailers(request, responder).await,
        "/test.Numbers/Double" | "/test.Numbers/Count" => grpc(path.ends_with("Count"), request, responder).await,
        "/note" => match std::fs::read_to_string("/data/note") {
            Ok(text) => say(responder, StatusCode::OK, text).await,
            Err(error) => say(responder, StatusCode::NOT_FOUND, error.to_string()).await,
        },
        "/lookup" => {
            let name = request.uri().query().unwrap_or_default().to_owned();
            let became = resolve_addresses(&instance_network(), &name).map_or_else(|it| it.name(), |_| "done");
            say(responder, StatusCode::OK, became.into()).await
        }
        "/tcp" => tcp(request, responder).await,
        "/panic" => panic!("on purpose"),
        "/grow" => grow(),
        "/broken" => Finished::fail(responder.start_response(Response::new(BodyForthcoming))),
        "/spin" => loop {
            std::hint::spin_loop();
        },
        _ => responder.respond(status(StatusCode::NOT_FOUND).body(empty()).unwrap()).await,
    }
}

/// Takes all memory that it can have, without a use for it.
fn grow() -> ! {
    #[cfg(target_arch = "wasm32")] // it is also examined for the machine's own
    while core::arch::wasm32::memory_grow::<0>(256) != usize::MAX {}
    panic!("there is no more memory");
}

/// What it hears at the address that the query is.
async fn tcp(request: Request<IncomingBody>, responder: Responder) -> Finished {
    let place = request.uri().query().unwrap_or_default().parse().expect("an address of IPv4 and a port");
    let text = heard(place).unwrap_or_else(|error| format!("{error:?}"));
    say(responder, StatusCode::OK, text).await
}

fn heard(place: SocketAddrV4) -> Result<String, ErrorCode> {
    let [a, b, c, d] = place.ip().octets();
    let address = IpSocketAddress::Ipv4(Ipv4SocketAddress { port: place.port(), address: (a, b, c, d) });
    let socket = create_tcp_socket(IpAddressFamily::Ipv4)?;
    socket.start_connect(&instance_network(), address)?;
    socket.subscribe().block();
    let (stream, _) = socket.finish_connect()?;
    let bytes = stream.blocking_read(100).expect("there is something to hear");
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn status(code: StatusCode) -> wstd::http::response::Builder {
    Response::builder().status(code)
}

async fn say(responder: Responder, code: StatusCode, text: String) -> Finished {
    let response = status(code).header("content-type", "text/plain");
    responder.respond(response.body(text.into_body()).unwrap()).await
}

/// Lines of `key value`.
async fn about(request: Request<IncomingBody>, responder: Responder) -> Finished {
    let mut lines = vec![format!("method {}", request.method()), format!("uri {}", request.uri())];
    lines.push(format!("requests {}", REQUESTS.fetch_add(1, Ordering::Relaxed) + 1));
    lines.extend(request.headers().iter().map(|(name, value)| format!("header {name}: {}", value.to_str().unwrap())));
    lines.extend(std::env::vars().map(|(name, value)| format!("env {name}={value}")));
    say(responder, StatusCode::OK, lines.join("\n")).await
}

async fn echo(mut request: Request<IncomingBody>, responder: Responder) -> Finished {
    let mut body = responder.start_response(Response::new(BodyForthcoming));
    let result = copy(request.body_mut(), &mut body).await;
    Finished::finish(body, result, None)
}

async fn count(mut request: Request<IncomingBody>, responder: Responder) -> Finished {
    let (mut buffer, mut total) = (vec![0; 65536], 0);
    loop {
        match request.body_mut().read(&mut buffer).await.expect("a body") {
            0 => return say(responder, StatusCode::OK, total.to_string()).await,
            more => total += more,
        }
    }
}

async fn ticks(responder: Responder) -> Finished {
    let mut body = responder.start_response(Response::new(BodyForthcoming));
    for number in 0..3 {
        if let Err(error) = body.write_all(format!("{number}\n").as_bytes()).await {
            return Finished::finish(body, Err(error), None);
        }
        body.flush().await.expect("a stream");
        wstd::task::sleep(Duration::from_millis(300)).await;
    }
    Finished::finish(body, Ok(()), None)
}

/// As many times 4 KiB as the query says, one after the other.
async fn pieces(request: Request<IncomingBody>, responder: Responder) -> Finished {
    let count = request.uri().query().unwrap_or("1").parse().unwrap_or(1);
    let mut body = responder.start_response(Response::new(BodyForthcoming));
    for _ in 0..count {
        if let Err(error) = body.write_all(&[b'x'; 4096]).await {
            return Finished::finish(body, Err(error), None);
        }
        body.flush().await.expect("a stream");
    }
    Finished::finish(body, Ok(()), None)
}

/// Asks the server that the query names, and hands its answer on.
async fn ask(request: Request<IncomingBody>, responder: Responder) -> Finished {
    let asked = Request::get(format!("http://{}", request.uri().query().unwrap()));
    match Client::new().send(asked.header("x-asked-by", "Rust").body(empty()).unwrap()).await {
        Ok(mut answer) => {
            let code = answer.status();
            let mut body = responder.start_response(status(code).body(BodyForthcoming).unwrap());
            let result = copy(answer.body_mut(), &mut body).await;
            Finished::finish(body, result, None)
        }
        Err(error) => say(responder, StatusCode::BAD_GATEWAY, error.to_string()).await,
    }
}

/// Asks the server that the query names 10,000 times at once, and waits for all answers.
async fn ask_many(request: Request<IncomingBody>, responder: Responder) -> Finished {
    let (client, url) = (Client::new(), format!("http://{}", request.uri().query().unwrap()));
    let ask = |_| Box::pin(client.send(Request::get(url.as_str()).body(empty()).unwrap()));
    let mut asked: Vec<_> = (0..10_000).map(ask).collect();
    poll_fn(|context| {
        asked.retain_mut(|it| it.as_mut().poll(context).is_pending());
        if asked.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    })
    .await;
    say(responder, StatusCode::OK, "all have answered".into()).await
}

/// Sends the request's trailers back, each with `x-back-` before its name.
async fn trailers(mut request: Request<IncomingBody>, responder: Responder) -> Finished {
    let got = request.body_mut().bytes().await.expect("a body");
    let came = request.into_body().finish().await.expect("trailers").unwrap_or_default();
    let mut back = HeaderMap::new();
    for (name, value) in &came {
        back.insert(format!("x-back-{name}").parse::<wstd::http::HeaderName>().unwrap(), value.clone());
    }
    let names = back.keys().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    let response = status(StatusCode::OK).header("trailer", names).body(BodyForthcoming).unwrap();
    let mut body = responder.start_response(response);
    let result = body.write_all(&got).await;
    Finished::finish(body, result, Some(back))
}

/// A service of gRPC by hand, whose messages are numbers of four bytes: their double, or all from 0 up to them.
async fn grpc(count: bool, mut request: Request<IncomingBody>, responder: Responder) -> Finished {
    let message = request.body_mut().bytes().await.expect("a body");
    let number = u32::from_be_bytes(message[5..9].try_into().expect("four bytes"));
    let mut end = HeaderMap::new();
    let numbers = match (count, number) {
        (true, _) => (0..number).collect(),
        (false, 13) => {
            end.insert("grpc-message", HeaderValue::from_static("unlucky"));
            vec![]
        }
        (false, _) => vec![number * 2],
    };
    let code = if end.is_empty() { "0" } else { "9" };
    end.insert("grpc-status", HeaderValue::from_static(code));
    let response = status(StatusCode::OK).header("content-type", "application/grpc").body(BodyForthcoming).unwrap();
    let mut body = responder.start_response(response);
    for number in numbers {
        let framed = [&[0, 0, 0, 0, 4][..], &number.to_be_bytes()].concat();
        if let Err(error) = body.write_all(&framed).await {
            return Finished::finish(body, Err(error), None);
        }
        body.flush().await.expect("a stream");
    }
    Finished::finish(body, Ok(()), Some(end))
}
