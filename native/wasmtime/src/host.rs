//! What guests are given.

use std::iter::repeat_n;
use std::sync::Arc;

use http::Uri;
use http::uri::Scheme;
use tokio::sync::Semaphore;
use wasmtime::component::ResourceTable;
use wasmtime::{Engine, Store, StoreLimits, StoreLimitsBuilder};
use wasmtime_wasi::filesystem::WasiFilesystemCtx;
use wasmtime_wasi::sockets::WasiSocketsCtx;
use wasmtime_wasi::{FsPerms, WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpCtxView,
    WasiHttpHooks, WasiHttpView,
};

use crate::abi::Block;
use crate::bridge::Caller;
use crate::extras::Extras;
use crate::outgoing::{Ask, Outgoing, Sending};
use crate::spin::{Given, Trees, Watch};

/// The most of a body that goes on at a time. With 32 KiB, 1 MB echoed takes up to a third more time outside the kernel;
/// with 256 KiB no less.
pub const CHUNK: usize = 128 * 1024;
/// Parts of a body between a guest of WASI 0.2 and a connection. What is written in small ones goes out by several at a
/// time, and neither side waits for the other after each.
const CHUNKS: usize = 8;
/// Requests that a guest has under way; more wait.
const ASKS_AT_A_TIME: usize = 64;

pub struct Preopen {
    pub host: String,
    pub guest: String,
    pub read_only: bool,
}

/// A component's.
pub struct Host {
    wasi: WasiCtx,
    table: ResourceTable,
    http: WasiHttpCtx,
    hooks: Hooks,
    of_client: Hooks,
    extras: Extras,
    caller: Caller,
    /// To a component of Spin's.
    pub spin: Option<Arc<Given>>,
    /// Who is told of what it does, if anybody is.
    pub watch: Option<Watch>,
    pub trees: Trees,
    pub limits: StoreLimits,
}

impl Host {
    pub fn new(wasi: WasiCtx, outgoing: Option<Arc<dyn Ask>>) -> Self {
        let hooks = Hooks { outgoing, watch: None, slots: None, all_headers: false };
        let of_client = Hooks { outgoing: None, watch: None, slots: None, all_headers: true };
        let (table, http, extras) = (ResourceTable::new(), WasiHttpCtx::new(), Extras::default());
        Self {
            wasi,
            table,
            http,
            hooks,
            of_client,
            extras,
            caller: Caller::default(),
            spin: None,
            watch: None,
            trees: Trees::default(),
            limits: StoreLimits::default(),
        }
    }

    fn watch(&mut self, watch: Watch) {
        self.hooks.watch = Some(watch.clone());
        self.watch = Some(watch);
    }

    pub fn caller(&mut self) -> &mut Caller {
        &mut self.caller
    }

    pub fn extras(&mut self) -> (&mut Extras, &mut ResourceTable, Option<Arc<dyn Ask>>) {
        (&mut self.extras, &mut self.table, self.hooks.outgoing.clone())
    }

    /// Why a request is not sent in any case, as far as that is known by its target.
    pub fn refuses(&self, target: &Uri) -> Option<Error> {
        self.hooks.outgoing.as_ref().map_or(Some(Error::HttpRequestDenied), |it| it.refuses(target))
    }

    pub fn table(&mut self) -> &mut ResourceTable {
        &mut self.table
    }

    /// For what clients send, whatever a guest may not send itself.
    pub fn of_client(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.of_client, table: &mut self.table, ctx: &mut self.http }
    }
}

impl WasiView for Host {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl WasiHttpView for Host {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.hooks, table: &mut self.table, ctx: &mut self.http }
    }
}

struct Hooks {
    /// ``None``: it may ask nobody.
    outgoing: Option<Arc<dyn Ask>>,
    watch: Option<Watch>,
    slots: Option<Arc<Semaphore>>,
    all_headers: bool,
}

impl WasiHttpHooks for Hooks {
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        let all = self.all_headers;
        Arc::new(move |name| !all && DEFAULT_FORBIDDEN_HEADERS.contains(name))
    }

    fn set_host_header(&mut self) -> bool {
        false // the client does, where the protocol has it
    }

    fn is_supported_scheme(&mut self, scheme: &Scheme) -> bool {
        *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS
    }

    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _errors: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Sending {
        let slots = self.slots.get_or_insert_with(|| Arc::new(Semaphore::new(ASKS_AT_A_TIME))).clone();
        let outgoing = self.outgoing.clone();
        let send = move |request| match outgoing {
            Some(outgoing) => outgoing.send(request, options.unwrap_or_default(), slots),
            None => Box::new(async { Err(Error::HttpRequestDenied) }) as Sending,
        };
        match &self.watch {
            Some(watch) => watch.sent(request, send),
            None => send(request),
        }
    }

    fn p2_outgoing_body_buffer_chunks(&mut self) -> usize {
        CHUNKS - 1 // the crate has one more
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }

    fn p3_outgoing_body_chunk_size(&mut self) -> usize {
        CHUNK
    }
}

/// A guest's world, as the block has it.
pub fn wasi(block: &Block) -> Result<WasiCtxBuilder, String> {
    let mut builder = WasiCtxBuilder::new();
    builder.inherit_stdio().args(&block.args).envs(&block.env);
    // A given socket's number is an entry of the crate's table, too, which no call ever reaches.
    let nothing = Preopen { host: "/proc/self/fdinfo".into(), guest: "/".into(), read_only: true };
    let before = repeat_n(block.preopens.first().unwrap_or(&nothing), block.listening.len());
    for preopen in before.chain(&block.preopens) {
        let permissions = if preopen.read_only { FsPerms::ReadOnly } else { FsPerms::ReadWrite };
        builder
            .preopened_dir(&preopen.host, &preopen.guest, permissions)
            .map_err(|error| format!("the directory {} cannot be had: {error:#}", preopen.guest))?;
    }
    if block.network {
        builder.inherit_network().allow_tcp(true).allow_udp(true).allow_ip_name_lookup(true);
    }
    Ok(builder)
}

pub fn outgoing(block: &Block) -> Option<Arc<dyn Ask>> {
    block.network.then(|| Arc::new(Outgoing::new(&block.env)) as Arc<dyn Ask>)
}

/// The world of a server's guests, who have it one after the other.
pub struct World {
    args: Vec<String>,
    env: Vec<(String, String)>,
    filesystem: WasiFilesystemCtx,
    sockets: WasiSocketsCtx,
    outgoing: Option<Arc<dyn Ask>>,
    spin: Option<Arc<Given>>,
    /// Bytes of a memory; ``None``: as many as there are.
    memory: Option<usize>,
    /// What stands before what is told of a guest.
    pub name: String,
}

impl World {
    pub fn new(block: &Block) -> Result<Self, String> {
        let mut wasi = wasi(block)?.build();
        Ok(Self {
            args: block.args.clone(),
            env: block.env.clone(),
            filesystem: wasi.filesystem().clone(),
            sockets: wasi.sockets().clone(),
            outgoing: outgoing(block),
            spin: None,
            memory: None,
            name: String::new(),
        })
    }

    /// Of a component of Spin's.
    pub fn of_spin(
        given: Arc<Given>,
        mut wasi: WasiCtx,
        outgoing: Arc<dyn Ask>,
        args: Vec<String>,
        env: Vec<(String, String)>,
        memory: Option<usize>,
    ) -> Self {
        let name = format!("{}: ", args[0]);
        let (filesystem, sockets) = (wasi.filesystem().clone(), wasi.sockets().clone());
        Self { args, env, filesystem, sockets, outgoing: Some(outgoing), spin: Some(given), memory, name }
    }

    /// A guest's own.
    ///
    /// :param watch: who is told of what it does
    pub fn store(&self, engine: &Engine, watch: Option<Watch>) -> Store<Host> {
        let mut store = Store::new(engine, self.request(watch));
        if self.memory.is_some() {
            store.limiter(|host| &mut host.limits);
        }
        store
    }

    /// A guest's, with a number of its own.
    fn request(&self, watch: Option<Watch>) -> Host {
        let mut builder = WasiCtxBuilder::new();
        builder.inherit_stdio().args(&self.args).envs(&self.env).env("REQUEST_ID", unique());
        if let Some((out, errors)) = watch.as_ref().and_then(Watch::lines) {
            builder.stdout(out).stderr(errors);
        }
        let mut wasi = builder.build();
        *wasi.filesystem() = self.filesystem.clone();
        *wasi.sockets() = self.sockets.clone();
        let mut host = Host::new(wasi, self.outgoing.clone());
        if let Some(spin) = &self.spin {
            host.trees = spin.trees();
            host.spin = Some(spin.clone());
        }
        if let Some(watch) = watch {
            host.watch(watch);
        }
        if let Some(memory) = self.memory {
            host.limits = StoreLimitsBuilder::new().memory_size(memory).build();
        }
        host
    }
}

/// A UUID (RFC 9562, version 4).
fn unique() -> String {
    let mut bytes = [0u8; 16];
    unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let number = u128::from_be_bytes(bytes);
    let part = |from: u32, digits: u32| (number >> from) & ((1u128 << (digits * 4)) - 1);
    format!("{:08x}-{:04x}-{:04x}-{:04x}-{:012x}", part(96, 8), part(80, 4), part(64, 4), part(48, 4), part(0, 12))
}
