//! SQLite, for guests and for key-value stores: files, opened once per process, shared by all requests.
//! ``shimd/apps/spin/database.py`` has the same, on the same files.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::types::{Value, ValueRef};
use rusqlite::{Connection, OpenFlags, Row, ffi};

use super::application::File;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS spin_key_value (
    store TEXT NOT NULL, key TEXT NOT NULL, value BLOB NOT NULL, PRIMARY KEY (store, key)
)";
/// For others that hold the file's lock.
const PATIENCE: Duration = Duration::from_secs(10);
/// Statements by which Python counts what has changed: those that insert, first.
const CHANGING: [&str; 4] = ["INSERT", "REPLACE", "UPDATE", "DELETE"];

/// One file; used by one guest at a time.
pub struct Database {
    path: PathBuf,
    /// Whether it has the table of key-value stores.
    stores: bool,
    /// Whether statements may attach other files, which may be another component's.
    attaches: bool,
    connection: Mutex<Option<Connection>>,
}

pub enum Failure {
    Full,
    /// Of the statement, or of the file.
    Wrong(String),
    System(io::Error),
}

pub type Done<T> = Result<T, Failure>;

pub struct Rows {
    pub columns: Vec<String>,
    pub rows: Vec<Vec<Value>>,
    /// ``None``: the statement is none that changes rows.
    pub changes: Option<u64>,
    /// ``None``: it has inserted none.
    pub last_row: Option<i64>,
}

impl Database {
    pub fn of(file: &File) -> Self {
        let path = PathBuf::from(&file.path);
        Self { path, stores: file.stores, attaches: file.attaches, connection: Mutex::default() }
    }

    /// What does not take long, as a look-up: at once, if nobody else is at it.
    pub async fn read<T: Send + 'static>(
        self: &Arc<Self>,
        ask: impl FnOnce(&Connection) -> Done<T> + Send + 'static,
    ) -> Done<T> {
        if let Ok(held) = self.connection.try_lock()
            && let Some(connection) = held.as_ref()
        {
            return ask(connection);
        }
        self.write(ask).await
    }

    /// On a thread that may wait.
    pub async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        ask: impl FnOnce(&Connection) -> Done<T> + Send + 'static,
    ) -> Done<T> {
        let own = self.clone();
        let asked = tokio::task::spawn_blocking(move || {
            let mut held = own.connection.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let connection = match held.take() {
                Some(connection) => connection,
                None => own.open()?,
            };
            ask(held.insert(connection))
        });
        asked.await.unwrap_or_else(|error| Err(Failure::Wrong(error.to_string())))
    }

    /// Run one statement, and keep what it changes.
    pub async fn execute(self: &Arc<Self>, statement: String, parameters: Vec<Value>) -> Done<Rows> {
        self.write(move |connection| execute(connection, &statement, &parameters)).await
    }

    fn open(&self) -> Done<Connection> {
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent).map_err(Failure::System)?;
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let mut connection = Connection::open_with_flags(&self.path, flags)?;
        connection.busy_timeout(PATIENCE)?;
        connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?;
        if self.stores {
            connection.execute(TABLE, [])?;
        }
        if !self.attaches {
            connection.authorizer(Some(without_files))?;
        }
        Ok(connection)
    }

    /// What a guest is told, with the file's name.
    pub fn told(&self, failure: Failure) -> String {
        format!("{}: {}", self.path.display(), failure.sentence())
    }
}

/// Allow all but attaching a file; an empty name is a temporary one.
fn without_files(context: AuthContext<'_>) -> Authorization {
    match context.action {
        AuthAction::Attach { filename } if !["", ":memory:"].contains(&filename) => Authorization::Deny,
        AuthAction::Unknown { code: ffi::SQLITE_ATTACH, .. } => Authorization::Deny,
        _ => Authorization::Allow,
    }
}

fn execute(connection: &Connection, statement: &str, parameters: &[Value]) -> Done<Rows> {
    let mut prepared = match connection.prepare_cached(statement) {
        Err(rusqlite::Error::Empty) => {
            return Ok(Rows { columns: vec![], rows: vec![], changes: None, last_row: None });
        }
        prepared => prepared?,
    };
    let columns: Vec<String> = prepared.column_names().map(str::to_string).collect();
    let values = |row: &Row| (0..columns.len()).map(|at| value(row.get_ref(at)?)).collect();
    let rows = prepared.query_and_then(rusqlite::params_from_iter(parameters), values)?.collect::<Done<Vec<_>>>()?;
    let kind = CHANGING.iter().position(|it| first_word(statement).eq_ignore_ascii_case(it));
    let changes = kind.map(|_| connection.changes());
    let inserted = kind.is_some_and(|kind| kind < 2) && changes > Some(0);
    Ok(Rows { columns, rows, changes, last_row: inserted.then(|| connection.last_insert_rowid()) })
}

/// Of a statement, after its comments.
fn first_word(statement: &str) -> &str {
    let rest = statement.trim_start();
    let comment =
        [("--", "\n"), ("/*", "*/")].into_iter().find_map(|(start, end)| Some((rest.strip_prefix(start)?, end)));
    match comment {
        Some((comment, end)) => first_word(comment.split_once(end).map_or("", |(_, rest)| rest)),
        None => rest.split(|it: char| !it.is_ascii_alphabetic()).next().unwrap_or_default(),
    }
}

fn value(found: ValueRef) -> Done<Value> {
    Ok(match found {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(number) => Value::Integer(number),
        ValueRef::Real(number) => Value::Real(number),
        ValueRef::Text(bytes) => match String::from_utf8(bytes.to_vec()) {
            Ok(text) => Value::Text(text),
            Err(_) => return Err(Failure::Wrong("Could not decode to UTF-8 a column with text".into())),
        },
        ValueRef::Blob(bytes) => Value::Blob(bytes.to_vec()),
    })
}

impl Failure {
    pub fn sentence(&self) -> String {
        match self {
            Self::Full => "database or disk is full".into(),
            Self::Wrong(reason) => reason.clone(),
            Self::System(error) => {
                let words = error.to_string();
                words.split(" (os error").next().unwrap_or_default().to_string()
            }
        }
    }
}

/// In Python's words.
impl From<rusqlite::Error> for Failure {
    fn from(error: rusqlite::Error) -> Self {
        match error {
            rusqlite::Error::SqliteFailure(of, _) if of.code == rusqlite::ErrorCode::DiskFull => Self::Full,
            rusqlite::Error::SqliteFailure(_, Some(message)) => Self::Wrong(message),
            rusqlite::Error::SqlInputError { msg, .. } => Self::Wrong(msg),
            rusqlite::Error::InvalidParameterCount(given, wanted) => Self::Wrong(format!(
                "Incorrect number of bindings supplied. The current statement uses {wanted}, and there are {given} supplied."
            )),
            rusqlite::Error::MultipleStatement => Self::Wrong("You can only execute one statement at a time.".into()),
            other => Self::Wrong(other.to_string()),
        }
    }
}
