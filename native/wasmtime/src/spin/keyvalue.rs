//! Key-value stores: ``fermyon:spin/key-value``, ``spin:key-value`` and ``wasi:keyvalue``, all of the same stores, which are
//! tables of SQLite's, as ``shimd/apps/spin/keyvalue.py`` has them.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension, params};
use wasmtime::StoreContextMut;
use wasmtime::component::{ComponentType, FutureReader, Lift, Linker, Lower, Resource, ResourceType, StreamReader};

use super::database::{Database, Done};
use super::given;
use super::telemetry::{Calls, Case, WatchedInterface};
use crate::host::Host;

const OLDER: &str = "fermyon:spin/key-value@2.0.0";
/// The one that is asynchronous.
const NEWER: &str = "spin:key-value/key-value@3.0.0";
const WASI: [&str; 3] =
    ["wasi:keyvalue/store@0.2.0-draft2", "wasi:keyvalue/atomics@0.2.0-draft2", "wasi:keyvalue/batch@0.2.0-draft2"];

/// A store that a guest has opened.
#[derive(Clone)]
pub struct Store {
    database: Arc<Database>,
    label: Arc<str>,
}

enum Error {
    NoSuchStore,
    AccessDenied,
    Other(String),
}

#[derive(ComponentType, Lift, Lower)]
#[component(variant)]
enum SpinError {
    #[component(name = "store-table-full")]
    StoreTableFull,
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

impl Case for SpinError {
    fn case(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::StoreTableFull => ("store-table-full", None),
            Self::NoSuchStore => ("no-such-store", None),
            Self::AccessDenied => ("access-denied", None),
            Self::Other(reason) => ("other", Some(reason)),
        }
    }
}

impl From<Error> for SpinError {
    fn from(error: Error) -> Self {
        match error {
            Error::NoSuchStore => Self::NoSuchStore,
            Error::AccessDenied => Self::AccessDenied,
            Error::Other(reason) => Self::Other(reason),
        }
    }
}

#[derive(ComponentType, Lower)]
#[component(variant)]
enum WasiError {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

impl Case for WasiError {
    fn case(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::NoSuchStore => ("no-such-store", None),
            Self::AccessDenied => ("access-denied", None),
            Self::Other(reason) => ("other", Some(reason)),
        }
    }
}

impl From<Error> for WasiError {
    fn from(error: Error) -> Self {
        match error {
            Error::NoSuchStore => Self::NoSuchStore,
            Error::AccessDenied => Self::AccessDenied,
            Error::Other(reason) => Self::Other(reason),
        }
    }
}

#[derive(ComponentType, Lower)]
#[component(record)]
struct KeyResponse {
    keys: Vec<String>,
    cursor: Option<String>,
}

/// A value that is only set if nobody else has, meanwhile.
pub struct Cas {
    store: Store,
    key: String,
    value: Option<Vec<u8>>,
}

#[derive(ComponentType, Lower)]
#[component(variant)]
enum CasError {
    #[component(name = "store-error")]
    StoreError(WasiError),
    #[component(name = "cas-failed")]
    CasFailed(Resource<Cas>),
}

impl Case for CasError {
    fn case(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::StoreError(error) => ("store-error", Some(error.case().0)),
            Self::CasFailed(_) => ("cas-failed", None),
        }
    }
}

type Asked<T> = Result<T, Error>;
type Pair = (String, Vec<u8>);

const GET: &str = "SELECT value FROM spin_key_value WHERE store = ? AND key = ?";
const SET: &str = "INSERT OR REPLACE INTO spin_key_value (store, key, value) VALUES (?, ?, ?)";
const DELETE: &str = "DELETE FROM spin_key_value WHERE store = ? AND key = ?";
const EXISTS: &str = "SELECT 1 FROM spin_key_value WHERE store = ? AND key = ?";
const KEYS: &str = "SELECT key FROM spin_key_value WHERE store = ? ORDER BY key";
const INCREMENT: &str = "INSERT INTO spin_key_value (store, key, value) VALUES (?1, ?2, CAST(?3 AS BLOB)) \
    ON CONFLICT (store, key) DO UPDATE SET value = CAST(CAST(CAST(value AS TEXT) AS INTEGER) + ?3 AS BLOB) \
    RETURNING CAST(value AS TEXT)";
const SWAP: &str = "UPDATE spin_key_value SET value = ?4 WHERE store = ?1 AND key = ?2 AND value = ?3 RETURNING 1";
const SWAP_NONE: &str =
    "INSERT INTO spin_key_value (store, key, value) VALUES (?, ?, ?) ON CONFLICT DO NOTHING RETURNING 1";

impl Store {
    fn open(host: &Host, label: &str) -> wasmtime::Result<Asked<Self>> {
        Ok(match given(host)?.stores.get(label) {
            None => Err(Error::AccessDenied),
            Some(None) => Err(Error::NoSuchStore),
            Some(Some(database)) => Ok(Self { database: database.clone(), label: label.into() }),
        })
    }

    fn told<T>(&self, done: Done<T>) -> Asked<T> {
        done.map_err(|failure| Error::Other(self.database.told(failure)))
    }

    async fn read<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Connection, &str) -> rusqlite::Result<T> + Send + 'static,
    ) -> Asked<T> {
        let label = self.label.clone();
        self.told(self.database.read(move |it| Ok(ask(it, &label)?)).await)
    }

    async fn write<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Connection, &str) -> rusqlite::Result<T> + Send + 'static,
    ) -> Asked<T> {
        let label = self.label.clone();
        self.told(self.database.write(move |it| Ok(ask(it, &label)?)).await)
    }

    async fn get(&self, key: String) -> Asked<Option<Vec<u8>>> {
        self.read(move |it, label| it.prepare_cached(GET)?.query_row(params![label, key], |row| row.get(0)).optional())
            .await
    }

    async fn set(&self, key: String, value: Vec<u8>) -> Asked<()> {
        self.write(move |it, label| it.prepare_cached(SET)?.execute(params![label, key, value]).map(drop)).await
    }

    async fn delete(&self, key: String) -> Asked<()> {
        self.write(move |it, label| it.prepare_cached(DELETE)?.execute(params![label, key]).map(drop)).await
    }

    async fn exists(&self, key: String) -> Asked<bool> {
        self.read(move |it, label| it.prepare_cached(EXISTS)?.exists(params![label, key])).await
    }

    async fn keys(&self) -> Asked<Vec<String>> {
        self.write(move |it, label| it.prepare_cached(KEYS)?.query_map([label], |row| row.get(0))?.collect()).await
    }

    /// Add to a value that is a number in decimal digits, atomically; returns the sum.
    async fn increment(&self, key: String, delta: i64) -> Asked<i64> {
        let ask = move |it: &Connection, label: &str| {
            it.prepare_cached(INCREMENT)?.query_row(params![label, key, delta], |row| row.get::<_, String>(0))
        };
        let sum = self.write(ask).await?;
        sum.parse().map_err(|_| Error::Other(format!("{sum} is no number of 64 bits")))
    }

    /// Set a value if it still is ``old``, atomically; returns whether it was set.
    async fn swap(&self, key: String, old: Option<Vec<u8>>, new: Vec<u8>) -> Asked<bool> {
        self.write(move |it, label| match old {
            None => it.prepare_cached(SWAP_NONE)?.exists(params![label, key, new]),
            Some(old) => it.prepare_cached(SWAP)?.exists(params![label, key, old, new]),
        })
        .await
    }
}

pub fn link(linker: &mut Linker<Host>, newer: bool) -> wasmtime::Result<()> {
    link_older(&mut linker.watched(OLDER)?)?;
    link_wasi(&mut linker.watched(WASI[0])?)?;
    link_atomics(&mut linker.watched(WASI[1])?)?;
    link_batch(&mut linker.watched(WASI[2])?)?;
    if newer {
        link_newer(&mut linker.watched(NEWER)?)?;
    }
    Ok(())
}

type Interface<'a> = WatchedInterface<'a>;
type Guest<'a> = StoreContextMut<'a, Host>;
type Own = Resource<Store>;

fn link_older(interface: &mut Interface<'_>) -> wasmtime::Result<()> {
    link_resource::<SpinError>(interface, "store")?;
    interface.func_wrap("[static]store.open", |mut store, (label,): (String,)| {
        Ok((open::<SpinError>(store.data_mut(), &label)?,))
    })?;
    interface.func_wrap_async("[method]store.get-keys", |mut store: Guest<'_>, (this,): (Own,)| {
        Box::new(async move { Ok((opened(&mut store, &this)?.keys().await.map_err(SpinError::from),)) })
    })
}

fn link_wasi(interface: &mut Interface<'_>) -> wasmtime::Result<()> {
    link_resource::<WasiError>(interface, "bucket")?;
    interface
        .func_wrap("open", |mut store, (label,): (String,)| Ok((open::<WasiError>(store.data_mut(), &label)?,)))?;
    // All keys come at once: there is never a next page.
    interface.func_wrap_async(
        "[method]bucket.list-keys",
        |mut store: Guest<'_>, (this, _cursor): (Own, Option<String>)| {
            Box::new(async move {
                let keys = opened(&mut store, &this)?.keys().await;
                Ok((keys.map(|keys| KeyResponse { keys, cursor: None }).map_err(WasiError::from),))
            })
        },
    )
}

/// What both have.
fn link_resource<E>(interface: &mut Interface<'_>, name: &str) -> wasmtime::Result<()>
where
    E: From<Error> + Case + ComponentType + Lower + Send + Sync + 'static,
{
    interface.resource(name, ResourceType::host::<Store>(), |mut store, rep| {
        store.data_mut().table().delete(Own::new_own(rep))?;
        Ok(())
    })?;
    let method = |function: &str| format!("[method]{name}.{function}");
    interface.func_wrap_async(&method("get"), |mut store: Guest<'_>, (this, key): (Own, String)| {
        Box::new(async move { Ok((opened(&mut store, &this)?.get(key).await.map_err(E::from),)) })
    })?;
    interface.func_wrap_async(&method("set"), |mut store: Guest<'_>, (this, key, value): (Own, String, Vec<u8>)| {
        Box::new(async move { Ok((opened(&mut store, &this)?.set(key, value).await.map_err(E::from),)) })
    })?;
    interface.func_wrap_async(&method("delete"), |mut store: Guest<'_>, (this, key): (Own, String)| {
        Box::new(async move { Ok((opened(&mut store, &this)?.delete(key).await.map_err(E::from),)) })
    })?;
    interface.func_wrap_async(&method("exists"), |mut store: Guest<'_>, (this, key): (Own, String)| {
        Box::new(async move { Ok((opened(&mut store, &this)?.exists(key).await.map_err(E::from),)) })
    })
}

fn link_newer(interface: &mut Interface<'_>) -> wasmtime::Result<()> {
    interface.resource("store", ResourceType::host::<Store>(), |mut store, rep| {
        store.data_mut().table().delete(Own::new_own(rep))?;
        Ok(())
    })?;
    interface.func_wrap_concurrent("[static]store.open", |accessor, (label,): (String,)| {
        Box::pin(async move { Ok((accessor.with(|mut it| open::<SpinError>(it.get(), &label))?,)) })
    })?;
    interface.func_wrap_concurrent("[method]store.get", |accessor, (this, key): (Own, String)| {
        Box::pin(async move {
            let store = accessor.with(|mut it| it.get().table().get(&this).cloned())?;
            Ok((store.get(key).await.map_err(SpinError::from),))
        })
    })?;
    interface.func_wrap_concurrent("[method]store.set", |accessor, (this, key, value): (Own, String, Vec<u8>)| {
        Box::pin(async move {
            let store = accessor.with(|mut it| it.get().table().get(&this).cloned())?;
            Ok((store.set(key, value).await.map_err(SpinError::from),))
        })
    })?;
    interface.func_wrap_concurrent("[method]store.delete", |accessor, (this, key): (Own, String)| {
        Box::pin(async move {
            let store = accessor.with(|mut it| it.get().table().get(&this).cloned())?;
            Ok((store.delete(key).await.map_err(SpinError::from),))
        })
    })?;
    interface.func_wrap_concurrent("[method]store.exists", |accessor, (this, key): (Own, String)| {
        Box::pin(async move {
            let store = accessor.with(|mut it| it.get().table().get(&this).cloned())?;
            Ok((store.exists(key).await.map_err(SpinError::from),))
        })
    })?;
    interface.func_wrap_concurrent("[method]store.get-keys", |accessor, (this,): (Own,)| {
        Box::pin(async move {
            let store = accessor.with(|mut it| it.get().table().get(&this).cloned())?;
            let (keys, end) = match store.keys().await {
                Ok(keys) => (keys, Ok(())),
                Err(error) => (Vec::new(), Err(SpinError::from(error))),
            };
            accessor.with(|mut it| {
                let keys = StreamReader::new(&mut it, keys)?;
                let end = FutureReader::new(&mut it, async move { Ok::<_, wasmtime::Error>(end) })?;
                Ok(((keys, end),))
            })
        })
    })
}

fn link_atomics(interface: &mut Interface<'_>) -> wasmtime::Result<()> {
    interface.resource("cas", ResourceType::host::<Cas>(), |mut store, rep| {
        store.data_mut().table().delete(Resource::<Cas>::new_own(rep))?;
        Ok(())
    })?;
    interface.func_wrap_async("[static]cas.new", |mut store: Guest<'_>, (bucket, key): (Own, String)| {
        Box::new(async move {
            let found = Cas::new(opened(&mut store, &bucket)?, key).await;
            Ok((match found {
                Ok(cas) => Ok(store.data_mut().table().push(cas)?),
                Err(error) => Err(WasiError::from(error)),
            },))
        })
    })?;
    interface.func_wrap("[method]cas.current", |mut store, (this,): (Resource<Cas>,)| {
        let value = store.data_mut().table().get(&this)?.value.clone();
        Ok((Ok::<_, WasiError>(value),))
    })?;
    interface.func_wrap_async("increment", |mut store: Guest<'_>, (bucket, key, delta): (Own, String, i64)| {
        Box::new(async move {
            let bucket = opened(&mut store, &bucket)?;
            Ok((bucket.increment(key, delta).await.map_err(WasiError::from),))
        })
    })?;
    interface.func_wrap_async("swap", |mut store: Guest<'_>, (cas, value): (Resource<Cas>, Vec<u8>)| {
        Box::new(async move {
            let cas = store.data_mut().table().delete(cas)?;
            let swapped = match cas.store.swap(cas.key.clone(), cas.value, value).await {
                Ok(true) => return Ok((Ok(()),)),
                Ok(false) => Cas::new(cas.store, cas.key).await,
                Err(error) => Err(error),
            };
            Ok((Err(match swapped {
                Ok(cas) => CasError::CasFailed(store.data_mut().table().push(cas)?),
                Err(error) => CasError::StoreError(error.into()),
            }),))
        })
    })
}

impl Cas {
    async fn new(store: Store, key: String) -> Asked<Self> {
        let value = store.get(key.clone()).await?;
        Ok(Self { store, key, value })
    }
}

fn link_batch(interface: &mut Interface<'_>) -> wasmtime::Result<()> {
    interface.func_wrap_async("get-many", |mut store: Guest<'_>, (bucket, keys): (Own, Vec<String>)| {
        Box::new(async move { Ok((opened(&mut store, &bucket)?.get_many(keys).await.map_err(WasiError::from),)) })
    })?;
    interface.func_wrap_async("set-many", |mut store: Guest<'_>, (bucket, pairs): (Own, Vec<Pair>)| {
        Box::new(async move { Ok((opened(&mut store, &bucket)?.set_many(pairs).await.map_err(WasiError::from),)) })
    })?;
    interface.func_wrap_async("delete-many", |mut store: Guest<'_>, (bucket, keys): (Own, Vec<String>)| {
        Box::new(async move { Ok((opened(&mut store, &bucket)?.delete_many(keys).await.map_err(WasiError::from),)) })
    })
}

impl Store {
    async fn get_many(&self, keys: Vec<String>) -> Asked<Vec<(String, Option<Vec<u8>>)>> {
        let mut found = Vec::new();
        for key in keys {
            let value = self.get(key.clone()).await?;
            found.push((key, value));
        }
        Ok(found)
    }

    async fn set_many(&self, pairs: Vec<Pair>) -> Asked<()> {
        for (key, value) in pairs {
            self.set(key, value).await?;
        }
        Ok(())
    }

    async fn delete_many(&self, keys: Vec<String>) -> Asked<()> {
        for key in keys {
            self.delete(key).await?;
        }
        Ok(())
    }
}

fn open<E: From<Error>>(host: &mut Host, label: &str) -> wasmtime::Result<Result<Own, E>> {
    Ok(match Store::open(host, label)? {
        Ok(store) => Ok(host.table().push(store)?),
        Err(error) => Err(error.into()),
    })
}

fn opened(store: &mut Guest<'_>, this: &Own) -> wasmtime::Result<Store> {
    Ok(store.data_mut().table().get(this)?.clone())
}
