//! Spin's HTTP applications: several components behind one server, each with what its manifest gives it.
//!
//! What a manifest says is read and checked by Python (``shimd/apps/spin``), and comes as a description
//! (``application.rs``).

mod absent;
mod allowed;
mod application;
mod asks;
mod database;
mod files;
mod fixed;
mod glob;
mod keyvalue;
mod linker;
mod models;
mod own;
mod routes;
mod sockets;
mod sqlite;
pub mod telemetry;
mod tree;
mod variables;

use std::collections::BTreeMap;
use std::ffi::c_int;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock, Weak};

use tokio::sync::Semaphore;
use wasmtime::Engine;
use wasmtime::component::{self, InstancePre};
use wasmtime_wasi_http::p2::bindings::ProxyPre;
use wasmtime_wasi_http::p3::bindings::ServicePre;

use crate::abi::Kind;
use crate::bridge::{self, Bridge};
use crate::clock::Clock;
use crate::destinations::{self, Destinations};
use crate::engine::{self, Flavour};
use crate::host::{Host, World};
use crate::http::{self, App, Component, Settings, hold};
use crate::outgoing::{Outgoing, Rules};
use crate::trust::ClientTls;

pub use absent::names as absent_names;
pub use application::Application;
use application::{Described, Description};
use asks::Asks;
use database::Database;
use files::Tree;
use routes::Routes;
use telemetry::Teller;
pub use telemetry::Watch;
pub use tree::Trees;

/// What a component has of Spin's.
pub struct Given {
    variables: BTreeMap<String, String>,
    /// By labels; ``None``: there is no such one.
    stores: BTreeMap<String, Option<Arc<Database>>>,
    databases: BTreeMap<String, Option<Arc<Database>>>,
    /// That it is granted.
    models: Vec<String>,
    tree: Option<Arc<Tree>>,
}

impl Given {
    /// For a guest.
    pub fn trees(&self) -> Trees {
        Trees::new(self.tree.clone())
    }
}

/// An application, before it serves.
pub struct Spin {
    description: Description,
    programs: Vec<Program>,
    tls: Vec<Arc<ClientTls>>,
    settings: Settings,
}

struct Program {
    kind: Kind,
    pre: InstancePre<Host>,
}

impl Spin {
    /// Map the components, and link them. The working directory is another one afterwards.
    ///
    /// :raises: the first that does not load; or a certificate that cannot be shown
    pub fn load(text: &str, settings: Settings) -> Result<Self, String> {
        let mut description: Description =
            serde_json::from_str(text).map_err(|error| format!("the application's description is wrong: {error}"))?;
        let tls: Vec<ClientTls> = description.network.tls.drain(..).map(Into::into).collect();
        for (at, one) in tls.iter().enumerate() {
            one.check().map_err(|error| format!("client_tls[{at}]: its certificate cannot be shown: {error}"))?;
        }
        let engines = Engines::of(&description.components, settings.concurrency);
        let ask = description.ask.map(bridge::asking);
        let load = |it: &Described| engines.load(it, &ask).map_err(|error| format!("component.{}: {error:#}", it.id));
        let programs = description.components.iter().map(load).collect::<Result<_, _>>()?;
        hold();
        Ok(Self { description, programs, tls: tls.into_iter().map(Arc::new).collect(), settings })
    }

    /// Serve until a signal ends it; returns the exit code.
    pub fn run(self) -> Result<c_int, String> {
        let settings = self.settings.clone();
        if self.description.telemetry.is_some() {
            telemetry::adopt(&self.description.env);
        }
        Ok(http::run(&settings, self.description.announced, || self.application().map(App::Spin)))
    }

    fn application(self) -> Result<Arc<Application>, String> {
        let Self { mut description, programs, tls, mut settings } = self;
        let shared = Shared::new(&description, tls);
        let told = description.telemetry.take();
        let Description { name, version, env, .. } = &description;
        let teller = told.map(|told| Teller::new(told, env, name, version).map(Arc::new)).transpose()?;
        if teller.is_some() {
            settings.reuse = 1; // what a guest does belongs to one request
        }
        let mut clocks: Vec<(Engine, Arc<Clock>)> = Vec::new();
        let mut components = Vec::new();
        for (described, Program { kind, pre }) in description.components.into_iter().zip(programs) {
            let known = clocks.iter().find(|(engine, _)| Engine::same(engine, pre.engine()));
            let clock = known.map_or_else(|| Clock::start(pre.engine()), |(_, clock)| clock.clone());
            clocks.push((pre.engine().clone(), clock.clone()));
            let id = described.id.clone();
            let world = shared.world(described, description.memory)?;
            let component = Component::new(kind, pre, world, &settings, clock);
            components.push((id.clone(), component.map_err(|error| format!("component.{id}: {error:#}"))?));
        }
        let about = serde_json::json!({"name": description.name, "version": description.version}).to_string();
        let routes = Routes::new(description.routes.into_iter());
        let application = Arc::new(Application { about, routes, components, teller });
        let _ = shared.application.set(Arc::downgrade(&application));
        Ok(application)
    }
}

/// Why a component cannot be one of an application's; ``None``: it can.
pub fn problem(kind: Kind, component: &component::Component) -> Option<wasmtime::Error> {
    let nobody = Arc::new(Bridge::new("", None));
    match kind {
        Kind::Server2 => linker::link(kind, component, &[], &nobody).and_then(ProxyPre::new).err(),
        Kind::Server3 => linker::link(kind, component, &[], &nobody).and_then(ServicePre::new).err(),
        _ => Some(wasmtime::Error::msg("it answers no requests by HTTP")),
    }
}

/// One for each WASI that there is, with a pool for all of its components.
struct Engines {
    older: Option<Engine>,
    newer: Option<Engine>,
}

impl Engines {
    fn of(components: &[Described], concurrency: usize) -> Self {
        let one = |kind: Kind| {
            let count = components.iter().filter(|it| it.kind == kind as u64).count();
            (count > 0).then(|| engine::pooling(Flavour::of(kind), concurrency * count).ok()).flatten()
        };
        Self { older: one(Kind::Server2), newer: one(Kind::Server3) }
    }

    fn load(&self, described: &Described, ask: &Option<Arc<OwnedFd>>) -> wasmtime::Result<Program> {
        let kind = if described.kind == Kind::Server3 as u64 { Kind::Server3 } else { Kind::Server2 };
        files::enter(described.cache).map_err(wasmtime::Error::msg)?;
        let pooled = if kind == Kind::Server3 { &self.newer } else { &self.older };
        let map = |engine: &Engine| unsafe { component::Component::deserialize_file(engine, &described.artifact) };
        let component = match pooled.as_ref().map(map) {
            Some(Ok(component)) => component,
            _ => map(&Engine::new(&Flavour::of(kind).config())?)?, // it needs larger places than a pool has, say
        };
        let over = Arc::new(Bridge::new(&described.id, ask.clone()));
        Ok(Program { kind, pre: linker::link(kind, &component, &described.bridged, &over)? })
    }
}

/// What the components have in common.
struct Shared {
    databases: Vec<Arc<Database>>,
    rules: Rules,
    tls: Vec<Arc<ClientTls>>,
    env: Vec<(String, String)>,
    root: String,
    application: Arc<OnceLock<Weak<Application>>>,
}

impl Shared {
    fn new(description: &Description, tls: Vec<Arc<ClientTls>>) -> Self {
        let network = &description.network;
        let blocked = network.blocked.iter().filter_map(|text| destinations::Network::parse(text)).collect();
        let rules = Rules {
            destinations: Arc::new(Destinations::new(blocked, network.private)),
            once: !network.keeps,
            tls: None,
            limit: network.most.map(|most| Arc::new(Semaphore::new(most))),
        };
        Self {
            databases: description.files.iter().map(|file| Arc::new(Database::of(file))).collect(),
            rules,
            tls,
            env: description.env.clone(),
            root: description.root.clone(),
            application: Arc::default(),
        }
    }

    fn world(&self, described: Described, memory: Option<usize>) -> Result<World, String> {
        let (mut wasi, tree) = files::world(&described, &self.root)?;
        let allowed: Arc<[_]> = described.allowed.into();
        sockets::allow(&mut wasi, &allowed, &self.rules.destinations);
        let outgoing =
            |tls: Option<Arc<ClientTls>>| Arc::new(Outgoing::under(Rules { tls, ..self.rules.clone() }, &self.env));
        let own = described.tls.into_iter().map(|(host, at)| (host, outgoing(Some(self.tls[at].clone()))));
        let asks = Asks::new(allowed, outgoing(None), own.collect(), self.application.clone());
        let named = |labels: Vec<(String, Option<usize>)>| {
            labels.into_iter().map(|(label, at)| (label, at.map(|at| self.databases[at].clone()))).collect()
        };
        let given = Given {
            variables: described.variables.into_iter().collect(),
            stores: named(described.stores),
            databases: named(described.databases),
            models: described.models,
            tree: tree.map(Arc::new),
        };
        Ok(World::of_spin(Arc::new(given), wasi.build(), Arc::new(asks), described.args, described.env, memory))
    }
}

impl From<application::Tls> for ClientTls {
    fn from(it: application::Tls) -> Self {
        let application::Tls { roots, platform, webpki, certificate, key } = it;
        Self { roots, platform, webpki, certificate, key }
    }
}

/// Wrong by our doing: a component has what its linker gives it.
fn given(host: &Host) -> wasmtime::Result<&Arc<Given>> {
    host.spin.as_ref().ok_or_else(|| wasmtime::Error::msg("it is no component of Spin's"))
}
