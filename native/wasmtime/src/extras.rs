//! Interfaces beside WASI's worlds: ``wasi:config``, ``wasi:keyvalue``, ``wasi:logging`` and ``wasi:tls``.
//!
//! What they need is made when a guest first asks for it.

use std::pin::Pin;
use std::sync::Arc;

use tokio_rustls::TlsConnector;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, ResourceTable};
use wasmtime_wasi::cli::WasiCliView;
use wasmtime_wasi::p2::bindings::cli::environment::Host as _;
use wasmtime_wasi_keyvalue::{WasiKeyValue, WasiKeyValueCtx};
use wasmtime_wasi_tls::{
    Error, TlsProvider, TlsStream, TlsTransport, WasiTlsCtx, WasiTlsCtxBuilder, WasiTlsCtxView, WasiTlsView,
};

use crate::abi::tell;
use crate::host::Host;
use crate::outgoing::Ask;
use crate::spin::telemetry::{Calls, Case};

/// Versions that toolchains have. They are all the same here.
pub const CONFIG: [&str; 2] = ["wasi:config/store@0.2.0-rc.1", "wasi:config/store@0.2.0-draft-2024-09-27"];
const LOGGING: [&str; 2] = ["wasi:logging/logging", "wasi:logging/logging@0.1.0-draft"];

/// A guest's.
pub struct Extras {
    /// Of each bucket that it opens, as of ``wasmtime serve``'s.
    keyvalue: WasiKeyValueCtx,
    tls: Option<WasiTlsCtx>,
}

impl Default for Extras {
    fn default() -> Self {
        Self { keyvalue: WasiKeyValueCtx::builder().build(), tls: None }
    }
}

impl Extras {
    fn tls(&mut self, outgoing: Option<Arc<dyn Ask>>) -> &mut WasiTlsCtx {
        self.tls.get_or_insert_with(|| WasiTlsCtxBuilder::new().provider(Box::new(Tls(outgoing))).build())
    }

    fn keyvalue<'a>(&'a self, table: &'a mut ResourceTable) -> WasiKeyValue<'a> {
        WasiKeyValue::new(&self.keyvalue, table)
    }
}

/// :param newer: with what WASI 0.3 has
pub fn add_to_linker(linker: &mut Linker<Host>, newer: bool) -> wasmtime::Result<()> {
    // A guest's configuration is its environment: what a pod's has from config maps, secrets and the like.
    CONFIG.iter().try_for_each(|name| add_config(linker, name, |host| host.cli().get_environment()))?;
    wasmtime_wasi_keyvalue::add_to_linker(linker, |host: &mut Host| {
        let (extras, table, _) = host.extras();
        extras.keyvalue(table)
    })?;
    add_stateless(linker, newer)
}

/// Logging and TLS, which are the same for all.
pub fn add_stateless(linker: &mut Linker<Host>, newer: bool) -> wasmtime::Result<()> {
    LOGGING.iter().try_for_each(|name| add_logging(linker, name))?;
    let mut options = wasmtime_wasi_tls::p2::LinkOptions::default();
    wasmtime_wasi_tls::p2::add_to_linker(linker, options.tls(true))?;
    if newer {
        wasmtime_wasi_tls::p3::add_to_linker(linker)?;
    }
    Ok(())
}

/// None of them happens here.
#[derive(ComponentType, Lower)]
#[component(variant)]
#[expect(dead_code, reason = "it is the interface's")]
enum ConfigError {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

impl Case for ConfigError {
    fn case(&self) -> (&'static str, Option<&str>) {
        match self {
            Self::Upstream(reason) => ("upstream", Some(reason)),
            Self::Io(reason) => ("io", Some(reason)),
        }
    }
}

type Pairs = Vec<(String, String)>;
type Configured<T> = wasmtime::Result<(Result<T, ConfigError>,)>;

/// :param all: a guest's configuration
pub fn add_config(
    linker: &mut Linker<Host>,
    name: &str,
    all: fn(&mut Host) -> wasmtime::Result<Pairs>,
) -> wasmtime::Result<()> {
    let mut interface = linker.watched(name)?;
    interface.func_wrap("get", move |mut store, (key,): (String,)| -> Configured<Option<String>> {
        let found = all(store.data_mut())?.into_iter().find(|(name, _)| *name == key);
        Ok((Ok(found.map(|(_, value)| value)),))
    })?;
    interface.func_wrap("get-all", move |mut store, (): ()| -> Configured<Pairs> { Ok((Ok(all(store.data_mut())?),)) })
}

#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(enum)]
#[expect(dead_code, reason = "guests make them")]
#[repr(u8)]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

/// On standard error, a message at a time: ``INFO context: message``.
fn add_logging(linker: &mut Linker<Host>, name: &str) -> wasmtime::Result<()> {
    linker.instance(name)?.func_wrap("log", |_, (level, context, message): (Level, String, String)| {
        let of = if context.is_empty() { String::new() } else { format!("{context}: ") };
        tell(&format!("{} {of}{message}", format!("{level:?}").to_uppercase()));
        Ok(())
    })
}

impl WasiTlsView for Host {
    fn tls(&mut self) -> WasiTlsCtxView<'_> {
        let (extras, table, outgoing) = self.extras();
        WasiTlsCtxView { ctx: extras.tls(outgoing), table }
    }
}

/// Who trusts what outgoing requests do; ``None``: it may ask nobody.
struct Tls(Option<Arc<dyn Ask>>);

type Connecting = Pin<Box<dyn Future<Output = Result<Box<dyn TlsStream>, Error>> + Send>>;

impl TlsProvider for Tls {
    fn connect(&self, server: String, transport: Box<dyn TlsTransport>) -> Connecting {
        let outgoing = self.0.clone();
        Box::pin(async move {
            let outgoing = outgoing.ok_or_else(|| Error::msg("the guest has no network"))?;
            let name = server.try_into().map_err(|_| Error::msg("invalid server name"))?;
            let made = TlsConnector::from(outgoing.tls()).connect(name, transport).await.map_err(Error::msg)?;
            Ok(Box::new(made) as Box<dyn TlsStream>)
        })
    }
}
