//! A server that asks a shelf of books, an interface that its host does not have.
use acme::things::shelf::{self, Book};
use wstd::http::body::IncomingBody;
use wstd::http::server::{Finished, Responder};
use wstd::http::{IntoBody, Request, Response};

wit_bindgen::generate!({ path: "../wit", world: "guest" });

#[wstd::http_server]
async fn main(request: Request<IncomingBody>, responder: Responder) -> Finished {
    let times: usize = request.uri().query().and_then(|it| it.parse().ok()).unwrap_or(1);
    let text = match request.uri().path() {
        "/greet" => repeated(times, || shelf::greet("you")),
        "/blob" => {
            let data = vec![7; 65536];
            repeated(times, || shelf::back(&data).len().to_string())
        }
        "/keep" => {
            let book = Book::new("Emma");
            std::mem::forget(book); // it ends with the guest
            Book::lost().to_string()
        }
        "/lost" => Book::lost().to_string(),
        "/wait" => {
            shelf::wait();
            "at last".into()
        }
        "/end" => {
            shelf::end();
            "on".into()
        }
        _ => "nothing".into(),
    };
    responder.respond(Response::new(format!("{text}\n").into_body())).await
}

/// Returns what it says the last time.
fn repeated(times: usize, ask: impl Fn() -> String) -> String {
    (1..times).for_each(|_| drop(ask()));
    ask()
}
