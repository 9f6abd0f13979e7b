//! An application of spin-sdk 7: key-value, SQLite, variables and other servers, by WASI 0.3.
use anyhow::Result;
use spin_sdk::http::Request;
use spin_sdk::http::body::IncomingBodyExt;
use spin_sdk::key_value::Store;
use spin_sdk::sqlite::{Connection, Value};
use spin_sdk::{http, http_service, variables};

#[http_service]
async fn handle(request: Request) -> Result<String> {
    let path = request.uri().path().trim_start_matches('/').to_string();
    let (what, rest) = path.split_once('/').unwrap_or((&path, ""));
    Ok(match what {
        "" => "hello from Spin 4 in Rust\n".into(),
        "counter" => counter().await?,
        "people" => people(rest).await?,
        "variable" => match variables::get(rest).await {
            Ok(value) => value,
            Err(error) => format!("{error:?}"),
        },
        "fetch" => match http::get(format!("http://{rest}/")).await {
            Ok(answer) => String::from_utf8(answer.into_body().bytes().await?.to_vec())?,
            Err(error) => format!("{error:?}"),
        },
        "shout" => String::from_utf8(request.into_body().bytes().await?.to_vec())?.to_uppercase(),
        "panic" => panic!("on purpose"),
        _ => anyhow::bail!("nothing is at {path}"),
    })
}

async fn counter() -> Result<String> {
    let store = Store::open_default().await?;
    let before = store.get("count").await?.map_or(Ok(0), |it| String::from_utf8_lossy(&it).parse::<u64>())?;
    store.set("count", (before + 1).to_string().as_bytes()).await?;
    Ok((before + 1).to_string())
}

async fn people(name: &str) -> Result<String> {
    let connection = Connection::open_default().await?;
    connection.execute("CREATE TABLE IF NOT EXISTS people (name TEXT)", []).await?;
    connection.execute("INSERT INTO people VALUES (?)", [Value::Text(name.into())]).await?;
    let mut found = connection.execute("SELECT name FROM people ORDER BY name", []).await?;
    let mut names = Vec::new();
    while let Some(row) = found.next().await {
        names.push(row.get::<&str>(0).unwrap_or("?").to_string());
    }
    found.result().await?;
    Ok(names.join(" "))
}
