//! What guests answer, and what they ask. The server that they ask is of `tests/conformance/endpoints.py`.
use checks::{check, ok, some};
use wasip3::cli::environment::get_environment;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme};
use wasip3::wit_bindgen::{spawn_local, FutureReader, StreamReader};
use wasip3::{wit_future, wit_stream};

type Trailers = FutureReader<Result<Option<Fields>, ErrorCode>>;

pub fn no_trailers() -> Trailers {
    wit_future::new(|| Ok(None)).1
}

fn taken() -> FutureReader<Result<(), ErrorCode>> {
    wit_future::new(|| Ok(())).1
}

fn fields(list: &[(&str, &str)]) -> Fields {
    let list: Vec<_> = list.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
    ok!(Fields::from_list(&list))
}

/// A body, which is written while it is read.
fn body(data: &[u8]) -> StreamReader<u8> {
    let (mut writer, reader) = wit_stream::new();
    let data = data.to_vec();
    spawn_local(async move {
        check!(writer.write_all(data).await.is_empty());
    });
    reader
}

pub fn answer(status: u16, headers: &[(&str, &str)], data: Option<&[u8]>) -> Response {
    let headers = fields(headers);
    if let Some(data) = data {
        ok!(headers.append("content-length", data.len().to_string().as_bytes()));
    }
    let (response, _sent) = Response::new(headers, data.map(body), no_trailers());
    ok!(response.set_status_code(status));
    response
}

/// A request's body and trailers.
pub async fn read(request: Request) -> (Vec<u8>, Option<Fields>) {
    let (stream, trailers) = Request::consume_body(request, taken());
    (stream.collect().await, ok!(trailers.await))
}

/// Where a server is, of those that there are for tests.
pub fn place(name: &str) -> String {
    some!(get_environment().into_iter().find(|(variable, _)| variable == name)).1
}

/// Of the one that answers.
pub fn server() -> String {
    place("SERVER")
}

/// What is to be sent, and whether it was.
pub fn request(
    method: &Method,
    authority: &str,
    path: Option<&str>,
    headers: &[(&str, &str)],
) -> (Request, FutureReader<Result<(), ErrorCode>>) {
    made(fields(headers), None, no_trailers(), method, authority, path)
}

fn made(
    headers: Fields,
    data: Option<StreamReader<u8>>,
    trailers: Trailers,
    method: &Method,
    authority: &str,
    path: Option<&str>,
) -> (Request, FutureReader<Result<(), ErrorCode>>) {
    let (request, sent) = Request::new(headers, data, trailers, None);
    ok!(request.set_method(method));
    ok!(request.set_scheme(Some(&Scheme::Http)));
    ok!(request.set_authority(Some(authority)));
    ok!(request.set_path_with_query(path));
    (request, sent)
}

/// What the server answered.
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, Vec<u8>)>,
    pub body: String,
    pub trailers: Option<Vec<(String, Vec<u8>)>>,
}

impl Answer {
    pub async fn of(response: Response) -> Self {
        let (status, headers) = (response.get_status_code(), response.get_headers().copy_all());
        let (stream, trailers) = Response::consume_body(response, taken());
        let body = ok!(String::from_utf8(stream.collect().await));
        Self { status, headers, body, trailers: ok!(trailers.await).map(|it| it.copy_all()) }
    }

    /// All values of a header.
    pub fn header(&self, name: &str) -> Vec<String> {
        values(&self.headers, name)
    }

    pub fn trailer(&self, name: &str) -> Vec<String> {
        values(self.trailers.as_deref().unwrap_or_default(), name)
    }
}

fn values(list: &[(String, Vec<u8>)], name: &str) -> Vec<String> {
    let own = list.iter().filter(|(other, _)| other.eq_ignore_ascii_case(name));
    own.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
}

/// Asks the server, without a body.
pub async fn ask(method: Method, path: Option<&str>, headers: &[(&str, &str)]) -> Answer {
    let (request, _sent) = request(&method, &server(), path, headers);
    Answer::of(ok!(client::send(request).await)).await
}

pub async fn get(path: &str) -> Answer {
    ask(Method::Get, Some(path), &[]).await
}

/// Sends the server a body, of a length that it is told.
pub async fn post(path: &str, data: &[u8]) -> Answer {
    let headers = fields(&[("content-length", &data.len().to_string())]);
    let (request, _sent) = made(headers, Some(body(data)), no_trailers(), &Method::Post, &server(), Some(path));
    Answer::of(ok!(client::send(request).await)).await
}

/// Sends the server a body that ends with trailers, or breaks off there.
pub async fn post_with_trailers(
    path: &str,
    data: &[u8],
    trailers: &[(&str, &str)],
    end: Result<(), ErrorCode>,
) -> Result<Response, ErrorCode> {
    let names: Vec<_> = trailers.iter().map(|(name, _)| *name).collect();
    let last = end.map(|()| Some(fields(trailers)));
    let (mut writer, stream) = wit_stream::new();
    let (end, ended) = wit_future::new(|| Ok(None));
    let data = data.to_vec();
    spawn_local(async move {
        check!(writer.write_all(data).await.is_empty());
        drop(writer);
        let _ = end.write(last).await; // nobody may wait for it any more
    });
    let headers = fields(&[("trailer", &names.join(", "))]);
    let (request, _sent) = made(headers, Some(stream), ended, &Method::Post, &server(), Some(path));
    client::send(request).await
}
