//! SQLite databases: ``fermyon:spin/sqlite`` and ``spin:sqlite``.

use std::sync::Arc;

use rusqlite::types;
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, FutureReader, Lift, Linker, Lower, Resource, ResourceType, StreamReader};

use super::database::{Database, Failure, Rows};
use super::given;
use super::telemetry::{Calls, Case, WatchedInterface};
use crate::host::Host;

/// The second tells of changes, too.
const OLDER: [&str; 2] = ["fermyon:spin/sqlite@2.0.0", "spin:sqlite/sqlite@3.0.0"];
/// The one that has what is asynchronous, besides.
const NEWER: &str = "spin:sqlite/sqlite@3.1.0";

/// A connection that a guest has opened.
pub struct Connection {
    database: Arc<Database>,
    last_row: i64,
    changes: u64,
}

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum Error {
    #[component(name = "no-such-database")]
    NoSuchDatabase,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "invalid-connection")]
    InvalidConnection,
    #[component(name = "database-full")]
    DatabaseFull,
    #[component(name = "io")]
    Io(String),
}

impl Case for Error {
    fn case(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::NoSuchDatabase => ("no-such-database", None),
            Self::AccessDenied => ("access-denied", None),
            Self::InvalidConnection => ("invalid-connection", None),
            Self::DatabaseFull => ("database-full", None),
            Self::Io(reason) => ("io", Some(reason)),
        }
    }
}

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum Value {
    #[component(name = "integer")]
    Integer(i64),
    #[component(name = "real")]
    Real(f64),
    #[component(name = "text")]
    Text(String),
    #[component(name = "blob")]
    Blob(Vec<u8>),
    #[component(name = "null")]
    Null,
}

impl From<Value> for types::Value {
    fn from(value: Value) -> Self {
        match value {
            Value::Integer(number) => Self::Integer(number),
            Value::Real(number) => Self::Real(number),
            Value::Text(text) => Self::Text(text),
            Value::Blob(bytes) => Self::Blob(bytes),
            Value::Null => Self::Null,
        }
    }
}

impl From<types::Value> for Value {
    fn from(value: types::Value) -> Self {
        match value {
            types::Value::Integer(number) => Self::Integer(number),
            types::Value::Real(number) => Self::Real(number),
            types::Value::Text(text) => Self::Text(text),
            types::Value::Blob(bytes) => Self::Blob(bytes),
            types::Value::Null => Self::Null,
        }
    }
}

#[derive(ComponentType, Lift, Lower)]
#[component(record)]
struct RowResult {
    values: Vec<Value>,
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct QueryResult {
    columns: Vec<String>,
    rows: Vec<RowResult>,
}

type Guest<'a> = StoreContextMut<'a, Host>;
type Own = Resource<Connection>;
type Statement = (Own, String, Vec<Value>);

pub fn link(linker: &mut Linker<Host>, newer: bool) -> wasmtime::Result<()> {
    for name in OLDER.into_iter().chain(newer.then_some(NEWER)) {
        link_older(&mut linker.watched(name)?)?;
    }
    if newer {
        link_newer(&mut linker.watched(NEWER)?)?;
    }
    Ok(())
}

fn link_older(interface: &mut WatchedInterface<'_>) -> wasmtime::Result<()> {
    interface.resource("connection", ResourceType::host::<Connection>(), |mut store, rep| {
        store.data_mut().table().delete(Own::new_own(rep))?;
        Ok(())
    })?;
    interface
        .func_wrap("[static]connection.open", |mut store, (name,): (String,)| Ok((open(store.data_mut(), &name)?,)))?;
    interface.func_wrap_async(
        "[method]connection.execute",
        |mut store: Guest<'_>, (this, text, given): Statement| {
            Box::new(async move {
                let database = store.data_mut().table().get(&this)?.database.clone();
                Ok((match execute(database, text, given).await {
                    Ok(found) => {
                        let (columns, rows) = kept(store.data_mut(), &this, found)?;
                        Ok(QueryResult { columns, rows })
                    }
                    Err(error) => Err(error),
                },))
            })
        },
    )?;
    interface.func_wrap("[method]connection.last-insert-rowid", |mut store, (this,): (Own,)| {
        Ok((store.data_mut().table().get(&this)?.last_row,))
    })?;
    interface.func_wrap("[method]connection.changes", |mut store, (this,): (Own,)| {
        Ok((store.data_mut().table().get(&this)?.changes,))
    })
}

fn link_newer(interface: &mut WatchedInterface<'_>) -> wasmtime::Result<()> {
    interface.func_wrap_concurrent("[static]connection.open-async", |accessor, (name,): (String,)| {
        Box::pin(async move { Ok((accessor.with(|mut it| open(it.get(), &name))?,)) })
    })?;
    interface.func_wrap_concurrent(
        "[method]connection.execute-async",
        |accessor, (this, text, given): Statement| {
            Box::pin(async move {
                let database = accessor.with(|mut it| it.get().table().get(&this).map(|it| it.database.clone()))?;
                let done = execute(database, text, given).await;
                accessor.with(|mut it| {
                    Ok((match done {
                        Ok(found) => {
                            let (columns, rows) = kept(it.get(), &this, found)?;
                            let rows = StreamReader::new(&mut it, rows)?;
                            let end =
                                FutureReader::new(&mut it, async { Ok::<_, wasmtime::Error>(Ok::<_, Error>(())) })?;
                            Ok((columns, rows, end))
                        }
                        Err(error) => Err(error),
                    },))
                })
            })
        },
    )?;
    interface.func_wrap_concurrent("[method]connection.last-insert-rowid-async", |accessor, (this,): (Own,)| {
        Box::pin(async move { accessor.with(|mut it| Ok((it.get().table().get(&this)?.last_row,))) })
    })?;
    interface.func_wrap_concurrent("[method]connection.changes-async", |accessor, (this,): (Own,)| {
        Box::pin(async move { accessor.with(|mut it| Ok((it.get().table().get(&this)?.changes,))) })
    })
}

fn open(host: &mut Host, name: &str) -> wasmtime::Result<Result<Own, Error>> {
    let database = match given(host)?.databases.get(name) {
        None => return Ok(Err(Error::AccessDenied)),
        Some(None) => return Ok(Err(Error::NoSuchDatabase)),
        Some(Some(database)) => database.clone(),
    };
    Ok(Ok(host.table().push(Connection { database, last_row: 0, changes: 0 })?))
}

async fn execute(database: Arc<Database>, statement: String, parameters: Vec<Value>) -> Result<Rows, Error> {
    let parameters = parameters.into_iter().map(Into::into).collect();
    database.execute(statement, parameters).await.map_err(|failure| match failure {
        Failure::Full => Error::DatabaseFull,
        Failure::Wrong(reason) => Error::Io(reason),
        Failure::System(_) => Error::Io(database.told(failure)),
    })
}

/// The rows of a result, of which its connection keeps the rest.
fn kept(host: &mut Host, this: &Own, found: Rows) -> wasmtime::Result<(Vec<String>, Vec<RowResult>)> {
    let connection = host.table().get_mut(this)?;
    connection.last_row = found.last_row.unwrap_or(connection.last_row);
    connection.changes = found.changes.unwrap_or(connection.changes);
    let rows = found.rows.into_iter().map(|row| RowResult { values: row.into_iter().map(Into::into).collect() });
    Ok((found.columns, rows.collect()))
}
