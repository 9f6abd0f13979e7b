//! An application of spin-sdk: a router over key-value, SQLite, variables, files and other servers.
use anyhow::Result;
use spin_sdk::http::{IntoResponse, Params, Request, Response, Router};
use spin_sdk::http_component;
use spin_sdk::key_value::Store;
use spin_sdk::sqlite::{Connection, Value};
use spin_sdk::variables;

#[http_component]
fn handle(request: Request) -> Result<impl IntoResponse> {
    let mut router = Router::new();
    router.get("/", |_: Request, _: Params| text("hello from Spin in Rust\n".into()));
    router.get("/counter", counter);
    router.get("/value/:key", |_: Request, params: Params| {
        let value = Store::open_default()?.get(params.get("key").unwrap())?;
        text(String::from_utf8(value.unwrap_or_default())?)
    });
    router.get("/variable/:name", |_: Request, params: Params| text(variables::get(params.get("name").unwrap())?));
    router.get("/people/:name", people);
    router.get("/read/*", |_: Request, params: Params| {
        text(std::fs::read_to_string(format!("/{}", params.wildcard().unwrap()))?)
    });
    router.get_async("/fetch/*", |_: Request, params: Params| fetch("http", params));
    router.get_async("/fetch-safely/*", |_: Request, params: Params| fetch("https", params));
    router.get("/redis/:server/:key", redis);
    router.post("/shout", |request: Request, _: Params| text(String::from_utf8(request.into_body())?.to_uppercase()));
    router.any("/about", |request: Request, _: Params| {
        let headers: Vec<_> =
            request.headers().map(|(name, value)| format!("{name}: {}", value.as_str().unwrap_or("?"))).collect();
        println!("asked with {}", request.method());
        text(headers.join("\n"))
    });
    router.get("/panic", |_: Request, _: Params| -> Result<Response> { panic!("on purpose") });
    Ok(router.handle(request))
}

fn text(body: String) -> Result<Response> {
    Ok(Response::builder().status(200).header("content-type", "text/plain").body(body).build())
}

fn counter(_: Request, _: Params) -> Result<Response> {
    let store = Store::open_default()?;
    let count = store.get_json::<u64>("count")?.unwrap_or(0) + 1;
    store.set_json("count", &count)?;
    text(count.to_string())
}

fn people(_: Request, params: Params) -> Result<Response> {
    let connection = Connection::open_default()?;
    connection.execute("CREATE TABLE IF NOT EXISTS people (name TEXT)", &[])?;
    connection.execute("INSERT INTO people VALUES (?)", &[Value::Text(params.get("name").unwrap().into())])?;
    let found = connection.execute("SELECT name FROM people ORDER BY name", &[])?;
    text(found.rows().filter_map(|row| row.get::<&str>("name").map(str::to_owned)).collect::<Vec<_>>().join(" "))
}

/// :param server: ``HOST:PORT``
fn redis(_: Request, params: Params) -> Result<Response> {
    let connection = spin_sdk::redis::Connection::open(&format!("redis://{}", params.get("server").unwrap()))?;
    let value = connection.get(params.get("key").unwrap())?;
    text(String::from_utf8(value.unwrap_or_default())?)
}

async fn fetch(scheme: &str, params: Params) -> Result<Response> {
    let asked = Request::get(format!("{scheme}://{}", params.wildcard().unwrap())).build();
    Ok(match spin_sdk::http::send::<_, Response>(asked).await {
        Ok(answer) => Response::builder().status(*answer.status()).body(answer.into_body()).build(),
        Err(error) => Response::builder().status(502).body(error.to_string()).build(),
    })
}
